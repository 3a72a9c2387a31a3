"""A folder has one process at a time; the operating system ends that with the process, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NAME = "lock"

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(folder: Path) -> int:
    """A handle that holds the folder until it is closed.

    Raises `BlockingIOError` when another process holds it, `OSError` when nothing can be written there.
    """
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle)
    except OSError as error:
        os.close(handle)
        raise BlockingIOError(error.errno, "another process uses it") from error
    return handle
