"""Pictures that were prepared before: the same file's bytes are not decoded and resized again.

A client that gives whole conversations sends its pictures with every question about them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from edgevlm_runtime.images.load import ImageSource
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.vision.encoder import ImageInput

CAPACITY = 64 << 20
"""Bytes of prepared pictures kept."""


class PreparedPictures:
    """Remembers pictures given as encoded bytes, by those; the least recently used leave first. Safe from any
    thread."""

    def __init__(self, pipeline: Pipeline, capacity: int = CAPACITY) -> None:
        self._pipeline, self._capacity = pipeline, capacity
        self._kept: OrderedDict[bytes, ImageInput] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, source: ImageSource) -> ImageInput:
        """The picture, prepared. Raises `ImageError`."""
        if not isinstance(source, bytes):
            return self._pipeline.prepare(source)
        digest = hashlib.sha256(source).digest()
        with self._lock:
            if (known := self._kept.get(digest)) is not None:
                self._kept.move_to_end(digest)
                return known
        made = self._pipeline.prepare(source)
        self._keep(digest, made)
        return made

    def _keep(self, digest: bytes, made: ImageInput) -> None:
        with self._lock:
            if digest in self._kept or _size(made) > self._capacity:
                return
            self._kept[digest] = made
            self._bytes += _size(made)
            while self._bytes > self._capacity:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(picture: ImageInput) -> int:
    prepared = picture.prepared
    arrays = [*prepared.feeds.values(), prepared.order, prepared.weights]
    return sum(array.nbytes for array in arrays if array is not None)
