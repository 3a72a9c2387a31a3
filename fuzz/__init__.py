"""Hostile input for every surface that reads what others wrote: `make fuzz`, or `python -m fuzz [TARGET...]`.

A target is a file in `fuzz/targets/`: how its inputs are changed, and what is done with one. Whatever is neither
success nor an `EdgeVLMError` is a finding: another exception, a native panic, a crash, a hang, too much memory.

`fuzz/corpus/TARGET/` holds the seeds (`python -m fuzz.seeds` wrote them). A finding becomes a file in
`fuzz/findings/TARGET/`, to be committed with its fix: `tests/fuzz/` replays both in the ordinary tests.
"""
