"""A prompt in parts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise


def chunks(start: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """Positions start..stop in as few parts of at most `most` as there can be, all nearly of one length."""
    count = -(-(stop - start) // most)
    return pairwise(start + (stop - start) * part // max(count, 1) for part in range(count + 1))
