"""From prepared images to embeddings: vision encoder and projector, with the image cache before them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from edgevlm_runtime.engines.base import Array, Graph
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.text.layout import ImagePart
from edgevlm_runtime.vision.cache import Embeddings, ImageCache

FEATURES = "image_features"
EMBEDDINGS = "image_embeddings"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A prepared image and its identity (`ImageEncoder.identify`)."""

    prepared: PreparedImage
    key: str
    tiles: tuple[str, ...] = ()
    """Identity of each of its tiles, or of those that are encoded at once, in the order of computation; none where
    there is one alone, or where they see each other."""
    parts: tuple[ImagePart, ...] = ()
    """The same with their rows, where these are in prompt order as they are computed."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """Embeddings of one image [tokens, hidden], read-only, and what it took to get them (milliseconds)."""

    embeddings: Embeddings
    cached: bool
    """Nothing had to be encoded."""
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

    def identify(self, image: PreparedImage) -> ImageInput:
        """The image with its identity: digests of what the vision encoder will see, and of what will look at it."""
        batches = list(self.batches(image.feeds))
        more = {"order": image.order, "weights": image.weights}
        rest = {name: array for name, array in more.items() if array is not None}
        if len(batches) <= 1 or image.weights is not None:  # mixed: their tiles would take more memory than they do
            return ImageInput(image, self._digest({"image": image.feeds, "rest": rest}))
        tiles = tuple(self._digest({"tile": feeds}) for feeds in batches)
        key = self._digest({"rest": rest}, tiles)
        return ImageInput(image, key, tiles, _parts(image, tiles, [_count(feeds) for feeds in batches]))

    def _digest(self, groups: Mapping[str, Mapping[str, Array]], names: Sequence[str] = ()) -> str:
        """Of arrays by group and name, and of other digests."""
        digest = hashlib.blake2b("\0".join((self._identity, *names)).encode(), digest_size=32)
        for group, arrays in groups.items():
            for name in sorted(arrays):
                array = np.ascontiguousarray(arrays[name])
                digest.update(f"\0{group}\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
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
        tiles = self.cache.get_tiles(image.tiles) if image.tiles else {}
        if not image.tiles or not all(key in tiles for key in image.tiles):
            known = self.cache.get(image.key)
            if known is not None:
                if self._problem(known, image.prepared) is None:
                    return EncodedImage(known, cached=True)
                self.cache.forget(image.key)
        encoded = self.compute(image, tiles)
        if image.tiles and self.cache.put_tiles(tiles):
            if not encoded.cached:
                self.cache.save(image.key, encoded.embeddings)
            encoded.embeddings.flags.writeable = False
            return encoded
        return replace(encoded, embeddings=self.cache.put(image.key, encoded.embeddings))

    def compute(self, image: ImageInput, tiles: dict[str, Embeddings] | None = None) -> EncodedImage:
        """Embeddings computed anew, past the cache, but for `tiles` by their keys, which then are all of the image's.
        Raises as `encode` does."""
        tiles = {} if tiles is None else tiles
        keys = image.tiles or map(str, count())
        parts: list[Array] = []
        runs, vision_ms, projector_ms = 0, 0.0, 0.0
        for key, feeds in zip(keys, self.batches(image.prepared.feeds), strict=False):
            if key not in tiles:
                start = time.perf_counter()
                features = self.vision.run(feeds)
                middle = time.perf_counter()
                projected = self.projector.run({name: features[name] for name in self.projector.inputs})[EMBEDDINGS]
                end = time.perf_counter()
                runs, vision_ms, projector_ms = runs + 1, vision_ms + middle - start, projector_ms + end - middle
                tiles[key] = np.asarray(projected.reshape(-1, projected.shape[-1]), dtype=np.float32)
            parts.append(tiles[key])
        rows = _in_prompt_order(np.concatenate(parts) if len(parts) > 1 else parts[0], image.prepared)
        problem = self._problem(rows, image.prepared)
        if problem is not None:
            raise BundleError(f"the projector of {self._where} {problem}")
        return EncodedImage(rows, not runs, vision_ms * 1e3, projector_ms * 1e3)

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


def _count(feeds: Mapping[str, Array]) -> int:
    """Tiles in a batch."""
    return len(next(iter(feeds.values())))


def _parts(image: PreparedImage, keys: Sequence[str], counts: Sequence[int]) -> tuple[ImagePart, ...]:
    """Batches of `counts` tiles as parts of the prompt; none where rows stand there otherwise than they are computed,
    or at places of two dimensions."""
    if image.order is not None or image.grid is not None or image.tokens % sum(counts):
        return ()
    rows = image.tokens // sum(counts)
    return tuple(ImagePart(key, rows * count) for key, count in zip(keys, counts, strict=True))


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
