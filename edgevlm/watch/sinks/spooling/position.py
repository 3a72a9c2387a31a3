"""A number in a small file that is replaced in one step and is on the disk when that returns: how far a spool is
acknowledged, and which record it got last."""

from __future__ import annotations

import os
from pathlib import Path

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_bytes
from edgevlm_runtime.saving import sync_folder

POSITION, RECORD = "position", "record"
LONGEST = 64


def read_number(folder: Path, name: str) -> int | None:
    """None where nothing is known."""
    try:
        return max(0, int(read_bytes(folder / name, LONGEST)))
    except (EdgeVLMError, OSError, ValueError):
        return None


def write_number(folder: Path, name: str, number: int) -> None:
    """Replace it. Raises `OSError`."""
    partial = folder / f"{name}.new"
    with partial.open("wb") as file:
        file.write(b"%d\n" % number)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / name)
    sync_folder(folder)
