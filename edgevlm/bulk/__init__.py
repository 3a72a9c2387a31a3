"""Bulk work: the same questions about many pictures, a row for each answer (`edgevlm map`).

`readers/` stream rows in, `processes.py` or `cluster.py` has them asked, `journal.py` keeps answers as they come,
`writers/` put them out in the input's order. `run.py` is all of it together.
"""
