"""JSON Lines: one object in a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

import msgspec

from edgevlm.bulk.readers.base import Columns, Reader, bad_row, find_columns, table_row
from edgevlm.bulk.readers.places import open_file
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError, reason

LONGEST_LINE = 64 << 20
"""Bytes: a picture may stand in it, as base64."""


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Objects."""

    place: str
    columns: Columns

    def total(self) -> None:
        """Nobody knows before the end."""

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Empty lines are none."""
        with open_file(self.place) as file:
            for number, line in enumerate(_lines(file)):
                if number < first:
                    continue
                cells = _object(line)
                if isinstance(cells, str):
                    yield bad_row(number, cells)
                else:
                    yield table_row(number, cells, self.columns, self.place)


def make(place: str, columns: Columns) -> Reader:
    """Which columns there are, the first line says. Raises `EdgeVLMError` where one that is needed is not there."""
    with open_file(place) as file:
        first = next(_lines(file), None)
    if first is None:
        return JsonLines(place, Columns(columns.image or "image", columns.id, columns.question or "question"))
    cells = _object(first)
    if isinstance(cells, str):
        raise EdgeVLMError(f"no JSON Lines: {place}: in its first line: {cells}")
    found = find_columns(columns, list(cells), place)
    # later lines may have a question where the first has none
    return JsonLines(place, replace(found, question=found.question or "question"))


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines that are not empty; None for one that is too long."""
    while line := file.readline(LONGEST_LINE):
        whole = line.endswith(b"\n") or len(line) < LONGEST_LINE
        while not line.endswith(b"\n") and len(line) == LONGEST_LINE:
            line = file.readline(LONGEST_LINE)
        if not whole:
            yield None
        elif line.strip():
            yield line


def _object(line: bytes | None) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    if line is None:
        return f"a line of more than {LONGEST_LINE} bytes"
    try:
        cells = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        return f"no JSON: {reason(error)}"
    return cells if isinstance(cells, dict) else "no JSON object"
