"""Kept frames asked again, by the plan of their records: which verdicts another bundle, driver or machine changes.

found = ask.replay(records, kept, vlm, plan)          # lists the verdicts that flip
count = run.flips(Path("records.jsonl"), vlm, plan)   # before a bundle is taken over
"""
