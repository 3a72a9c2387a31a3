"""How far a spool is acknowledged: a small file that is replaced in one step and is on the disk when that returns."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_bytes

NAME = "position"
LONGEST = 64


def read_position(folder: Path) -> int:
    """Everything up to this number is acknowledged; 0 where nothing is known, and then all is sent again."""
    try:
        return max(0, int(read_bytes(folder / NAME, LONGEST)))
    except (EdgeVLMError, OSError, ValueError):
        return 0


def write_position(folder: Path, number: int) -> None:
    """Replace it. Raises `OSError`."""
    partial = folder / f"{NAME}.new"
    with partial.open("wb") as file:
        file.write(b"%d\n" % number)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Names made or replaced in `folder` outlive a power failure. Raises `OSError`."""
    if sys.platform == "win32":  # has no such call: the file system does it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
