"""Inputs: one file for each kind, found by the suffix; what has none of them is a folder of pictures.

`read(place, columns)` gives a `Reader`: rows one after another, never the whole input at once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import PurePosixPath

from edgevlm.bulk.readers.base import Columns, Reader
from edgevlm.bulk.readers.places import is_folder
from edgevlm_runtime.errors import EdgeVLMError

KINDS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Suffix of a file to the module here that reads it."""

__all__ = ["KINDS", "Columns", "Reader", "read"]


def read(place: str, columns: Columns) -> Reader:
    """The input at `place`, a path or an address. Raises `EdgeVLMError` where there is none, or its columns do not fit.

    `ModuleNotFoundError` where the package is not installed that reads it.
    """
    kind = KINDS.get(PurePosixPath(place).suffix.lower())
    if kind is None or is_folder(place):
        if not is_folder(place):
            raise EdgeVLMError(f"no such input: {place}: give a folder of pictures, or a file {', '.join(KINDS)}")
        if columns != Columns():
            raise EdgeVLMError(f"a folder has no columns: {place}: leave out the names of columns")
        kind = "folder"
    reader: Reader = import_module(f"{__name__}.{kind}").make(place, columns)
    return reader
