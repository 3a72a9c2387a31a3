"""Which seeds belong to which split, and which printed codes training never sees.

A part is named by one integer, its seed. The splits are disjoint ranges of seeds, so no picture of the test split can
have been trained on or selected with. One code in ten is held out of the training split as well: reading it shows that
characters are read and codes are not remembered.
"""

from __future__ import annotations

SPLITS: dict[str, range] = {
    "train": range(100_000_000),
    "validation": range(100_000_000, 101_000_000),
    "test": range(101_000_000, 102_000_000),
}


def seeds(split: str) -> range:
    """All seeds of a split."""
    try:
        return SPLITS[split]
    except KeyError:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}") from None


def split_of(seed: int) -> str:
    """The split that owns a seed."""
    for name, members in SPLITS.items():
        if seed in members:
            return name
    raise ValueError(f"seed {seed} belongs to no split; seeds run from 0 to {SPLITS['test'].stop - 1}")


def held_out(code: str) -> bool:
    """Whether a printed code such as ``P45`` is kept out of the training split (one in ten)."""
    return (ord(code[0]) + int(code[1:])) % 10 == 7
