"""Results kept in a folder: one file each, written atomically, bounded, least recently used files leave first.

A file ends with the sha256 of its bytes and of what it is stored for. What does not match, for whatever reason, is
removed and counts as not there: a cache may lose entries, never invent them. Several processes and threads may share a
folder; a disk that is full or gone costs the entry, not the answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_bytes

log = logging.getLogger(__name__)

_PART = ".part"
_LEFTOVER_SECONDS = 3600
_DIGEST_BYTES = hashlib.sha256().digest_size


class DiskCache:
    """Files of one suffix in a folder."""

    def __init__(self, folder: str | os.PathLike[str], capacity: int, suffix: str, what: str, option: str) -> None:
        """`capacity` in bytes; `what` and `option` are for messages: what is kept, and the option that names the
        folder. Raises `EdgeVLMError` when the folder cannot be made or written."""
        self.folder = Path(folder)
        self.capacity = capacity
        self.suffix = suffix
        self._what = what
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgeVLMError(f"{what} folder cannot be made: {folder}: {error.strerror or error}") from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise EdgeVLMError(f"{what} folder is not writable: {folder}: choose another {option}")

    def file(self, name: str) -> Path:
        """Where the entry called `name` lies, if it is there."""
        return self.folder / f"{name}{self.suffix}"

    def load(self, name: str, key: str) -> bytes | None:
        """The bytes that were saved for `key`, or None; damaged files are removed."""
        file = self.file(name)
        try:
            data = read_bytes(file, self.capacity)
        except OSError:
            return None
        view = memoryview(data)
        if data[-_DIGEST_BYTES:] != _digest(key, [view[:-_DIGEST_BYTES]]):
            self.discard(name)
            return None
        with contextlib.suppress(OSError):  # another process may have removed it: the copy in hand is still good
            os.utime(file)  # marks the use, which is what eviction goes by
        return data[:-_DIGEST_BYTES]

    def discard(self, name: str) -> None:
        """Remove a damaged entry, and say so."""
        file = self.file(name)
        log.warning("damaged %s entry, computed anew: %s", self._what, file)
        self.remove(name)

    def remove(self, name: str) -> None:
        """Remove an entry."""
        with contextlib.suppress(OSError):  # a folder that is read-only by now costs nothing but the warning
            self.file(name).unlink()

    def save(self, name: str, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Store bytes, given in parts. Returns whether they are there: not what is larger than all may be."""
        if sum(memoryview(part).nbytes for part in parts) + _DIGEST_BYTES > self.capacity:
            return False
        try:
            with self._lock:
                self._write(self.file(name), [*parts, _digest(key, parts)])
                self._evict()
        except OSError as error:
            log.warning("%s entry not stored: %s", self._what, error)
            return False
        return True

    def _write(self, file: Path, parts: Sequence[bytes | memoryview]) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=_PART)
        try:
            with os.fdopen(handle, "wb") as stream:
                for part in parts:
                    stream.write(part)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _evict(self) -> None:
        self._remove_leftovers()
        entries = []
        for file in self.folder.glob(f"*{self.suffix}"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue  # another process was faster
            entries.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in entries)
        for _, size, file in sorted(entries, key=lambda entry: entry[0]):
            if total <= self.capacity:
                return
            file.unlink(missing_ok=True)
            total -= size

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed while writing left behind."""
        for file in self.folder.glob(f"*{_PART}"):
            try:
                if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS:
                    file.unlink()
            except FileNotFoundError:
                continue


def _digest(key: str, parts: Sequence[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0")
    for part in parts:
        digest.update(part)
    return digest.digest()
