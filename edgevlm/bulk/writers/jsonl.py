"""JSON Lines: an object for each result, with every column; `value` is data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from edgevlm.bulk.rows import COLUMNS, Result, encode


def needs() -> None:
    """Nothing that is not there."""


def write(file: IO[bytes], results: Iterator[Result]) -> int:
    """Returns how many there were."""
    count = 0
    for result in results:
        file.write(encode({name: getattr(result, name) for name in COLUMNS}))
        count += 1
    return count
