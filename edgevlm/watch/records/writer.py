"""Lines appended to a file for good: whole or not at all, on the disk when `append` returns, in files of bounded size.

    writer = Writer(Path("records.jsonl"), rotate_bytes=64 << 20, keep_bytes=None)
    writer.append(line)   # raises OSError when it is not on the disk; the file is then as before

It knows nothing of records but that a line begins a file under its number, which names the file when it is closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from edgevlm.watch.records import files
from edgevlm_runtime.saving import sync_folder

log = logging.getLogger(__name__)

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Writer:
    """Appends; used by one thread at a time, in one process (`locks.exclusive`)."""

    def __init__(self, file: Path, rotate_bytes: int, keep_bytes: int | None) -> None:
        """`keep_bytes`: closed files are deleted above it, oldest first, but for the newest one, which shows that the
        file that is written to goes on from it; None keeps all. Touches nothing yet."""
        self._file = file
        self._rotate = rotate_bytes
        self._keep = keep_bytes
        self._handle: int | None = None
        self._size = 0
        self._first = 0

    def begin(self, first: int) -> None:
        """`first`: the number of the first record that is in the file, or will be. Raises `OSError`."""
        self._first = first
        self._open()

    def append(self, lines: bytes, number: int) -> None:
        """Write whole lines, the first of them record `number`. Raises `OSError`, and leaves the file as it was."""
        if self._handle is not None and not self._is_there():
            log.warning("%s was taken away while it was written to: a new one is begun", self._file)
            self.close()
        if self._handle is None:
            self._open()
        if self._size and self._size + len(lines) > self._rotate:
            self._close_file()
        if not self._size:
            self._first = number
        assert self._handle is not None
        try:
            _write(self._handle, lines)
            os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """May be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._file, _FLAGS, 0o666)
        self._size = os.fstat(self._handle).st_size
        with contextlib.suppress(OSError):
            sync_folder(self._file.parent)

    def _is_there(self) -> bool:
        """Whether the file of that name still is the one that is open."""
        assert self._handle is not None
        try:
            return os.path.samestat(os.fstat(self._handle), self._file.stat())
        except OSError:
            return False

    def _close_file(self) -> None:
        """Give the full file its own name, and begin the next; one that cannot get it goes on to twice the size."""
        self.close()
        try:
            set_aside(self._file, self._first)
        except OSError as error:
            self._rotate *= 2
            log.warning("%s is full and cannot be renamed: it goes on: %s", self._file, error)
        self._open()
        self._delete_old()

    def _delete_old(self) -> None:
        if self._keep is None:
            return
        try:
            found = [(path, path.stat().st_size) for path in files.closed_files(self._file)]
            above = sum(size for _, size in found) - self._keep
            for path, size in found[:-1]:
                if above <= 0:
                    return
                path.unlink(missing_ok=True)
                above -= size
        except OSError as error:
            log.warning("old records cannot be deleted: %s", error)


def set_aside(file: Path, first: int) -> Path:
    """Give a file that is not written to any more the name of its first record's number. Raises `OSError`."""
    target = files.closed(file, first)
    if target.exists():
        raise FileExistsError(errno.EEXIST, "a file of this name is there already", str(target))
    file.rename(target)
    return target


def _write(handle: int, data: bytes) -> None:
    """All of it: a disk that fills up takes a part, and says so only the next time."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
