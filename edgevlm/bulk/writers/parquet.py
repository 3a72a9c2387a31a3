"""Parquet: `probabilities` is a map, `value` is JSON as text, since its columns are known only to the schema."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from edgevlm.bulk.rows import COLUMNS, Result, encode

TOGETHER = 1024
"""Rows that are in memory at once."""


def needs() -> None:
    """Raises `ModuleNotFoundError` without pyarrow."""
    import pyarrow.parquet  # noqa: F401 (whether it is there)


def write(file: IO[bytes], results: Iterator[Result]) -> int:
    """Returns how many there were."""
    import pyarrow as pa
    from pyarrow import parquet

    schema, count = _schema(), 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := [_cells(result) for result in islice(results, TOGETHER)]:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            count += len(some)
    return count


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    kinds = {
        "id": text,
        "image": text,
        "question": text,
        "answer": text,
        "probability": number,
        "probabilities": pa.map_(text, number),
        "value": text,
        "tokens": pa.int64(),
        "milliseconds": number,
        "error": text,
    }
    return pa.schema([(name, kinds[name]) for name in COLUMNS])


def _cells(result: Result) -> dict[str, Any]:
    cells = {name: getattr(result, name) for name in COLUMNS}
    if result.value is not None:
        cells["value"] = encode(result.value).decode().rstrip("\n")
    if result.probabilities is not None:
        cells["probabilities"] = list(result.probabilities.items())
    return cells
