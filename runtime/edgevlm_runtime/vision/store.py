"""Image embeddings on disk (`disk.cache`): a file is a `.npy` array [tokens, hidden] of float32."""

from __future__ import annotations

import hashlib
import io
import os

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.disk.cache import DiskCache

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""What of numpy's format is read here: a header is checked before anything is reserved for the array it promises."""


class DiskStore:
    """Embeddings in a folder that several processes and threads may share."""

    def __init__(self, folder: str | os.PathLike[str], capacity: int) -> None:
        """`capacity` in bytes. Raises `EdgeVLMError` when the folder cannot be made or written."""
        self._files = DiskCache(folder, capacity, ".embeddings", "image cache", "image_cache_dir")

    def load(self, key: str) -> NDArray[np.float32] | None:
        """The stored embeddings, or None; damaged files are removed."""
        name = _name(key)
        data = self._files.load(name, key)
        if data is None:
            return None
        embeddings = _decode(data)
        if embeddings is None:
            self._files.discard(name)
        return embeddings

    def save(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Store embeddings. A disk that is full or gone costs the entry, not the answer."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(embeddings, dtype=np.float32), allow_pickle=False)
        self._files.save(_name(key), key, [buffer.getbuffer()])


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _decode(body: bytes) -> NDArray[np.float32] | None:
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
