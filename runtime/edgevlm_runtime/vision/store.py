"""Image embeddings on disk: one file per image, written atomically, bounded, least recently used files leave first.

A file is a `.npy` array [tokens, hidden] of float32 with the sha256 of its bytes behind it. What does not match, for
whatever reason, is removed and counts as not there: a cache may lose entries, never invent them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_bytes

log = logging.getLogger(__name__)

_SUFFIX = ".embeddings"
_PART = ".part"
_LEFTOVER_SECONDS = 3600
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""What of numpy's format is read here: a header is checked before anything is reserved for the array it promises."""
_DIGEST_BYTES = hashlib.sha256().digest_size


class DiskStore:
    """Embeddings in a folder that several processes and threads may share."""

    def __init__(self, folder: str | os.PathLike[str], capacity: int) -> None:
        """`capacity` in bytes. Raises `EdgeVLMError` when the folder cannot be made or written."""
        self._folder = Path(folder)
        self._capacity = capacity
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgeVLMError(f"image cache folder cannot be made: {folder}: {error.strerror or error}") from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise EdgeVLMError(f"image cache folder is not writable: {folder}: choose another image_cache_dir")

    def load(self, key: str) -> NDArray[np.float32] | None:
        """The stored embeddings, or None; damaged files are removed."""
        file = self._file(key)
        try:
            data = read_bytes(file, self._capacity)
        except OSError:
            return None
        embeddings = _decode(key, data)
        if embeddings is None:
            log.warning("damaged image cache entry, computed anew: %s", file)
            with contextlib.suppress(OSError):  # a folder that is read-only by now costs nothing but the warning
                file.unlink()
            return None
        with contextlib.suppress(OSError):  # another process may have removed it: the copy in hand is still good
            os.utime(file)  # marks the use, which is what eviction goes by
        return embeddings

    def save(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Store embeddings. A disk that is full or gone costs the entry, not the answer."""
        data = _encode(key, embeddings)
        if len(data) > self._capacity:
            return
        try:
            with self._lock:
                self._write(self._file(key), data)
                self._evict()
        except OSError as error:
            log.warning("image cache entry not stored: %s", error)

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}{_SUFFIX}"

    def _write(self, file: Path, data: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=_PART)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _evict(self) -> None:
        self._remove_leftovers()
        entries = []
        for file in self._folder.glob(f"*{_SUFFIX}"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue  # another process was faster
            entries.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in entries)
        for _, size, file in sorted(entries, key=lambda entry: entry[0]):
            if total <= self._capacity:
                return
            file.unlink(missing_ok=True)
            total -= size

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed while writing left behind."""
        for file in self._folder.glob(f"*{_PART}"):
            try:
                if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS:
                    file.unlink()
            except FileNotFoundError:
                continue


def _encode(key: str, embeddings: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(embeddings, dtype=np.float32), allow_pickle=False)
    body = buffer.getvalue()
    return body + _digest(key, body)


def _decode(key: str, data: bytes) -> NDArray[np.float32] | None:
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if digest != _digest(key, body):
        return None
    stream = io.BytesIO(body)
    try:
        shape, order, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    except (KeyError, ValueError, EOFError, SyntaxError, RecursionError, MemoryError):
        return None
    rest = body[stream.tell() :]
    if len(shape) != 2 or order or dtype != np.float32 or len(rest) != 4 * shape[0] * shape[1]:
        return None
    embeddings = np.frombuffer(rest, np.float32).reshape(shape).copy()
    return embeddings if np.isfinite(embeddings).all() else None


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + body).digest()
