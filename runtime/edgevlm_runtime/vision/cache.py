"""Image embeddings that were already computed, by content: images seen again cost no vision encoder run.

The key is a digest of the prepared pixels, the preprocessing and the bundle, never a path or an object's identity: a
file that is overwritten is another image. What is kept is a copy, so that buffers reused elsewhere cannot change it.

Of images that are cut into tiles, the tiles are kept instead, in memory: where a camera's picture changed in one of
them alone, the others are not encoded again. Images whose rows are mixtures of several, and those whose tiles do not
fit all at once, are kept as they are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]


class ImageStore(Protocol):
    """Where embeddings outlive the process (`edgevlm_runtime.vision.store`)."""

    def load(self, key: str) -> Embeddings | None: ...

    def save(self, key: str, embeddings: Embeddings) -> None: ...


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What the cache did so far, and what it holds now."""

    hits: int
    """Images found, whole or by all their tiles."""
    misses: int
    evictions: int
    """Images and tiles that left."""
    images: int
    bytes: int
    """Of images and tiles."""
    tile_hits: int = 0
    tile_misses: int = 0
    """Also of images that were then found whole."""
    tiles: int = 0


class ImageCache:
    """Least recently used embeddings leave first once `capacity` bytes are exceeded. Safe from any thread."""

    def __init__(self, capacity: int, store: ImageStore | None = None) -> None:
        self._capacity = capacity
        self._store = store
        self._kept: OrderedDict[str, Embeddings] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0
        self._tile_hits = self._tile_misses = 0
        self._tiles: set[str] = set()
        """Keys of tiles among those kept."""
        self._lock = threading.Lock()

    def get(self, key: str) -> Embeddings | None:
        """Embeddings [tokens, hidden] (read-only), or None when they have to be computed."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self._hits += 1
                return found
        stored = self._store.load(key) if self._store is not None else None
        with self._lock:
            if stored is None:
                self._misses += 1
                return None
            self._hits += 1
            return self._keep(key, stored)

    def put(self, key: str, embeddings: Embeddings) -> Embeddings:
        """Keep a copy, which is returned (read-only); the caller's array may be reused."""
        copy = np.array(embeddings, copy=True, order="C")
        copy.flags.writeable = False
        with self._lock:
            kept = self._keep(key, copy)
        self.save(key, kept)
        return kept

    def get_tiles(self, keys: Collection[str]) -> dict[str, Embeddings]:
        """Of an image's tiles those that are known, as the projector gives them [tokens, hidden] (read-only). Tiles are
        never on disk. All of them together are an image that was found."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
            self._tile_hits += len(found)
            self._tile_misses += len(set(keys)) - len(found)
            self._hits += len(found) == len(set(keys))
            return found

    def put_tiles(self, tiles: Mapping[str, Embeddings]) -> bool:
        """Keep copies of all tiles of an image, in place of the image; False when they exceed the capacity, and none is
        kept."""
        if sum(rows.nbytes for rows in tiles.values()) > self._capacity:
            return False
        with self._lock:
            for key, rows in tiles.items():
                if key in self._kept:
                    self._kept.move_to_end(key)
                else:
                    self._keep(key, np.array(rows, copy=True, order="C"))
                    self._tiles.add(key)
        return True

    def save(self, key: str, embeddings: Embeddings) -> None:
        """Have an image outlive the process, where there is a place on disk. (Those that are put together from tiles of
        others are not stored.)"""
        if self._store is not None:
            self._store.save(key, embeddings)

    def counts(self) -> CacheCounts:
        """Hits, misses and size."""
        with self._lock:
            whole, tiles = (self._hits, self._misses, self._evictions), len(self._tiles)
            images = len(self._kept) - tiles
            return CacheCounts(*whole, images, self._bytes, self._tile_hits, self._tile_misses, tiles)

    def forget(self, key: str) -> None:
        """Keep an image no longer in memory."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self._bytes -= found.nbytes

    def clear(self) -> None:
        """Forget what is in memory; what is on disk stays."""
        with self._lock:
            self._kept.clear()
            self._tiles.clear()
            self._bytes = 0

    def _keep(self, key: str, embeddings: Embeddings) -> Embeddings:
        """Insert under the lock. One that alone exceeds the capacity is returned but not kept."""
        embeddings.flags.writeable = False
        before = self._kept.pop(key, None)
        self._tiles.discard(key)
        if before is not None:
            self._bytes -= before.nbytes
        if embeddings.nbytes > self._capacity:
            return embeddings
        self._kept[key] = embeddings
        self._bytes += embeddings.nbytes
        while self._bytes > self._capacity:
            left, oldest = self._kept.popitem(last=False)
            self._tiles.discard(left)
            self._bytes -= oldest.nbytes
            self._evictions += 1
        return embeddings
