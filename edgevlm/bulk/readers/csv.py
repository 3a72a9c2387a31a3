"""A CSV file with a line of names; UTF-8, with or without a byte order mark."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from edgevlm.bulk.readers.base import Columns, Reader, bad_row, find_columns, table_row
from edgevlm.bulk.readers.places import open_file
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError, one_line

LONGEST_CELL = 64 << 20
"""Characters: a picture may stand in it, as base64."""


@dataclass(frozen=True, slots=True)
class Csv:
    """A table."""

    place: str
    columns: Columns
    names: tuple[str, ...]

    def total(self) -> None:
        """Nobody knows before the end."""

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Empty lines are none."""
        with _text(self.place) as file:
            lines = _lines(file)
            next(lines)
            for number, cells in enumerate(lines):
                if number < first:
                    continue
                yield self._row(number, cells)

    def _row(self, number: int, cells: list[str] | str) -> Row:
        if isinstance(cells, str):
            return bad_row(number, cells)
        if len(cells) > len(self.names):
            return bad_row(number, f"{len(cells)} cells in a row of {len(self.names)} columns")
        return table_row(number, dict(zip(self.names, cells, strict=False)), self.columns, self.place)


def make(place: str, columns: Columns) -> Reader:
    """Raises `EdgeVLMError` where the columns are not there."""
    with _text(place) as file:
        names = next(_lines(file), [])
    if isinstance(names, str):
        raise EdgeVLMError(f"no CSV: {place}: {names}")
    if len(set(names)) < len(names):
        raise EdgeVLMError(f"two columns of {place} have one name: {', '.join(names[:20])}")
    return Csv(place, find_columns(columns, names, place), tuple(names))


def _text(place: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_file(place), "utf-8-sig", "replace", newline="")


def _lines(file: io.TextIOWrapper) -> Iterator[list[str] | str]:
    """The cells of each line that is not empty, or what is wrong with it."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(file)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"no row: {one_line(error)}"
        else:
            if cells:
                yield cells
