"""Outputs: one file for each kind, found by the suffix. An output is there complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from edgevlm.bulk.rows import Result
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import why

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
"""Suffix to the module here that writes it."""


def check(path: Path) -> None:
    """Before the work: such an output can be written. Raises `EdgeVLMError`; `ModuleNotFoundError` for its package."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise EdgeVLMError(f"cannot tell the kind of output: {path}: end its name with {', '.join(KINDS)}")
    import_module(f"{__name__}.{kind}").needs()


def write(path: Path, results: Iterator[Result]) -> int:
    """Write every result in its order; returns how many. Raises `EdgeVLMError`."""
    kind = import_module(f"{__name__}.{KINDS[path.suffix.lower()]}")
    target = path.resolve()
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as file:
            count: int = kind.write(file, results)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise EdgeVLMError(f"cannot write {path}: {why(error)}: make room, and go on with --resume") from error
    finally:
        partial.unlink(missing_ok=True)
    return count
