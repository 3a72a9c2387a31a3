"""In which line of a TOML file a key is, which `tomllib` does not say: by reading the file's first lines again."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from typing import Any

from edgevlm.watch.plan.faults import Place

MOST_LINES = 5000
"""Longer files are not searched: that would take seconds."""


def line_of(text: str, place: Place) -> int | None:
    """The line, from 1, in which the value at `place` begins; of the table around it where it is not there.

    The file's first n lines either have the value or not, and the more there are, the sooner: so the line is found by
    bisection. Lines that end within a value are read on to its end. None for the whole file, and for one too long.
    """
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        return None
    whole = _read(lines)
    while place and not _has(whole, place):
        place = place[:-1]
    if not place:
        return None
    return bisect_left(range(len(lines) + 1), True, key=lambda count: _has(_read(lines, count), place))


def _read(lines: list[str], count: int | None = None) -> Any:
    """The first `count` lines as data, or the fewest above that can be read."""
    for end in range(len(lines) if count is None else count, len(lines) + 1):
        try:
            return tomllib.loads("\n".join(lines[:end]))
        except (ValueError, RecursionError):
            continue
    return {}


def _has(data: Any, place: Place) -> bool:
    for part in place:
        if isinstance(part, int):
            if not isinstance(data, list) or part >= len(data):
                return False
        elif not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True
