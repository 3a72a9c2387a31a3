"""A Parquet file: pictures as paths, as bytes, or as Hugging Face's datasets write them (`bytes` and `path`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgevlm.bulk.readers.base import Columns, Reader, find_columns, table_row
from edgevlm.bulk.readers.places import open_file
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError, reason

TOGETHER = 16
"""Rows that are in memory at once, pictures and all, beside what the file's own row groups take."""


@dataclass(frozen=True, slots=True)
class Parquet:
    """A table."""

    place: str
    columns: Columns
    count: int

    def total(self) -> int:
        """The file says it."""
        return self.count

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Row groups before `first` are not read."""
        wanted = [name for name in (self.columns.image, self.columns.id, self.columns.question) if name is not None]
        with open_file(self.place) as file:
            table = _open(file, self.place)
            number, groups = 0, list[int]()
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                if not groups and number + size <= first:
                    number += size
                else:
                    groups.append(group)
            if not groups:
                return
            for cells in self._cells(table, groups, list(dict.fromkeys(wanted))):
                if number >= first:
                    yield table_row(number, cells, self.columns, self.place)
                number += 1

    def _cells(self, table: Any, groups: list[int], wanted: list[str]) -> Iterator[dict[str, Any]]:
        import pyarrow as pa

        try:
            for batch in table.iter_batches(TOGETHER, row_groups=groups, columns=wanted):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise EdgeVLMError(f"damaged Parquet file: {self.place}: {reason(error)}") from error


def make(place: str, columns: Columns) -> Reader:
    """Raises `EdgeVLMError` where the columns are not there."""
    with open_file(place) as file:
        table = _open(file, place)
        return Parquet(place, find_columns(columns, table.schema_arrow.names, place), table.metadata.num_rows)


def _open(file: Any, place: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise EdgeVLMError(f"no Parquet file: {place}: {reason(error)}") from error
