"""From prepared images to embeddings: vision encoder and projector, with the image cache before them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from edgevlm_runtime.engines.base import Array, Graph
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.vision.cache import Embeddings, ImageCache

FEATURES = "image_features"
EMBEDDINGS = "image_embeddings"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A prepared image and its identity (`ImageEncoder.key`)."""

    prepared: PreparedImage
    key: str


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """Embeddings of one image [tokens, hidden], read-only, and what it took to get them (milliseconds)."""

    embeddings: Embeddings
    cached: bool
    vision_ms: float = 0.0
    projector_ms: float = 0.0


class ImageEncoder:
    """Vision encoder, projector and cache of one bundle. Safe from any thread."""

    def __init__(
        self,
        vision: Graph,
        projector: Graph,
        cache: ImageCache,
        identity: str,
        batch: int,
        width: int | None = None,
        where: str = "this bundle",
    ) -> None:
        """`identity` names what else decides the embeddings (bundle, engine, provider); `batch` is the number of
        tiles run at once; `width` the decoder's, where it is known; `where` the bundle, for errors."""
        self.vision = vision
        self.projector = projector
        self._identity = f"{identity} batch {batch}"
        self._batch = batch
        self._width = width
        self._where = where
        self.cache = cache
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Embeddings | None]] = {}
        """Images being encoded right now, by key."""
        _check_graphs(vision, projector)
        features = vision.outputs[FEATURES].shape
        # [tiles, patches, width] with a free first dimension: tiles do not see each other
        self._by_tile = len(features) == 3 and not isinstance(features[0], int)

    def key(self, image: PreparedImage) -> str:
        """The image's identity: digest of what the vision encoder will see, and of what will look at it."""
        digest = hashlib.blake2b(self._identity.encode(), digest_size=32)
        more = {"": image.order, " weights": image.weights}
        arrays = {**image.feeds, **{name: array for name, array in more.items() if array is not None}}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.data.cast("B"))
        return digest.hexdigest()

    def encode(self, image: ImageInput) -> EncodedImage:
        """Embeddings of an image, from the cache or computed; threads that want the same image wait for the first.

        Raises `BundleError` when the graphs give another number of rows than the image has tokens, rows of another
        width than the decoder takes, or what are no numbers.
        """
        while True:
            with self._lock:
                flight = self._flights.get(image.key)
                if flight is None:
                    own = self._flights[image.key] = Future()
                    break
            shared = flight.result()
            if shared is not None:  # else the first one failed: this one may fare better
                return EncodedImage(shared, cached=True)
        encoded: EncodedImage | None = None
        try:
            encoded = self._look_up(image)
            return encoded
        finally:
            with self._lock:
                del self._flights[image.key]
            own.set_result(None if encoded is None else encoded.embeddings)

    def _look_up(self, image: ImageInput) -> EncodedImage:
        known = self.cache.get(image.key)
        if known is not None and self._problem(known, image.prepared) is None:
            return EncodedImage(known, cached=True)
        encoded = self.compute(image)
        return replace(encoded, embeddings=self.cache.put(image.key, encoded.embeddings))

    def compute(self, image: ImageInput) -> EncodedImage:
        """Embeddings computed anew, past the cache. Raises as `encode` does."""
        parts: list[Array] = []
        vision_ms = projector_ms = 0.0
        for feeds in self.batches(image.prepared.feeds):
            start = time.perf_counter()
            features = self.vision.run(feeds)
            middle = time.perf_counter()
            projected = self.projector.run({name: features[name] for name in self.projector.inputs})[EMBEDDINGS]
            end = time.perf_counter()
            vision_ms += (middle - start) * 1e3
            projector_ms += (end - middle) * 1e3
            parts.append(projected.reshape(-1, projected.shape[-1]))
        rows = np.concatenate(parts) if len(parts) > 1 else parts[0]
        rows = _in_prompt_order(rows, image.prepared)
        problem = self._problem(rows, image.prepared)
        if problem is not None:
            raise BundleError(f"the projector of {self._where} {problem}")
        return EncodedImage(np.asarray(rows, dtype=np.float32), False, vision_ms, projector_ms)

    def _problem(self, rows: Array, image: PreparedImage) -> str | None:
        """What is wrong with an image's embeddings, if anything."""
        if rows.shape[0] != image.tokens:
            return f"gives {rows.shape[0]} rows for an image of {image.tokens} tokens: export the model again"
        if self._width is not None and rows.shape[1:] != (self._width,):
            return (
                f"gives embeddings of width {rows.shape[-1]}, the decoder takes {self._width}: export the model again"
            )
        if not np.isfinite(rows).all():
            return "gives embeddings that are not numbers: export it in a higher precision, or copy it again"
        return None

    def features(self, image: ImageInput) -> Array:
        """What the projector gets, computed anew: `image_features` of all tiles, in the order of computation."""
        parts = [self.vision.run(feeds)[FEATURES] for feeds in self.batches(image.prepared.feeds)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def batches(self, feeds: dict[str, Array]) -> Iterator[dict[str, Array]]:
        """The feeds in slices of `batch` tiles where tiles are independent, else as they are."""
        counts = {array.shape[:1] for array in feeds.values()}
        if not self._by_tile or len(counts) != 1 or counts == {()}:
            yield feeds
            return
        ((tiles,),) = counts
        for start in range(0, tiles, self._batch):
            yield {name: array[start : start + self._batch] for name, array in feeds.items()}


def _in_prompt_order(rows: Array, image: PreparedImage) -> Array:
    """An image's rows as its tokens stand in the prompt; as they are where there are too few of them."""
    order, weights = image.order, image.weights
    if order is None or not order.size or int(order.max()) >= rows.shape[0]:
        return rows
    if weights is None:
        return rows[order]
    mixed = np.zeros((len(order), *rows.shape[1:]), np.float32)
    for tap in range(order.shape[1]):  # one at a time: all of them would take as many times the memory
        mixed += weights[:, tap, None] * rows[order[:, tap]]
    return mixed


def _check_graphs(vision: Graph, projector: Graph) -> None:
    for graph, names, what in (
        (vision, [FEATURES], "vision encoder"),
        (projector, [EMBEDDINGS], "projector"),
    ):
        missing = [name for name in names if name not in graph.outputs]
        if missing:
            raise BundleError(f"the {what} graph has no output {missing[0]!r}: export the model again")
        if graph.outputs[names[0]].dtype.kind != "f" or not graph.outputs[names[0]].shape:
            raise BundleError(f"the {what} graph's {names[0]!r} holds no rows of numbers: export the model again")
    unknown = sorted(set(projector.inputs) - set(vision.outputs))
    if unknown or not projector.inputs:
        raise BundleError(
            f"the projector graph takes {sorted(projector.inputs)}, the vision encoder gives {sorted(vision.outputs)}: "
            "export the model again"
        )
