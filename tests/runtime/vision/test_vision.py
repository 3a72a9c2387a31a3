"""From images to embeddings: identity, tiles, order, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime.engines.base import Port
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.vision.cache import ImageCache
from edgevlm_runtime.vision.encoder import ImageEncoder
from edgevlm_runtime.vision.store import DiskStore

WIDTH = 3


class _Fake:
    """A graph that records its feeds: features are the pixels' means, embeddings the features plus one."""

    def __init__(self, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.runs: list[dict[str, Any]] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.runs.append(dict(feeds))
        if "image_features" in feeds:
            return {"image_embeddings": feeds["image_features"] + 1}
        pixels = next(iter(feeds.values())).astype(np.float32)
        if len(self.outputs["image_features"].shape) == 2:
            return {"image_features": np.repeat(pixels.reshape(-1, 1), WIDTH, axis=1)}
        features = pixels.reshape(pixels.shape[0], -1, 1)
        return {"image_features": np.repeat(features, WIDTH, axis=2)}

    def binding(self) -> Any:
        raise NotImplementedError

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        raise NotImplementedError


def _port(name: str, *shape: int | str) -> dict[str, Port]:
    return {name: Port(name, np.dtype(np.float32), shape)}


def _encoder(
    batch: int = 1,
    features: tuple[int | str, ...] = ("N", 2, WIDTH),
    capacity: int = 1 << 20,
    store: DiskStore | None = None,
) -> tuple[ImageEncoder, _Fake]:
    vision = _Fake(_port("pixels", "N", 2), _port("image_features", *features))
    projector = _Fake(_port("image_features", *features), _port("image_embeddings", *features))
    return ImageEncoder(vision, projector, ImageCache(capacity, store), "test", batch), vision


def _image(pixels: Any, tokens: int, order: Any = None) -> PreparedImage:
    order = None if order is None else np.array(order, dtype=np.int64)
    return PreparedImage({"pixels": np.array(pixels, dtype=np.uint8)}, tokens, "", order)


def _encode(encoder: ImageEncoder, image: PreparedImage) -> np.ndarray:
    found = encoder.encode(encoder.identify(image)).embeddings
    assert not found.flags.writeable
    return found


@pytest.mark.parametrize(("batch", "runs"), [(1, [1, 1, 1]), (2, [2, 1]), (5, [3])])
def test_tiles_run_in_batches(batch: int, runs: list[int]) -> None:
    encoder, vision = _encoder(batch)
    embeddings = _encode(encoder, _image([[1, 2], [3, 4], [5, 6]], 6))
    np.testing.assert_array_equal(embeddings[:, 0], [2, 3, 4, 5, 6, 7])
    assert [run["pixels"].shape[0] for run in vision.runs] == runs


def test_patches_that_see_each_other_run_together() -> None:
    """Native resolution: rows of one image, no tiles; the first dimension is not one of independent images."""
    encoder, vision = _encoder(1, ("rows", WIDTH))
    assert _encode(encoder, _image([[1, 2], [3, 4]], 4)).shape == (4, WIDTH)
    assert len(vision.runs) == 1


def test_rows_come_in_prompt_order() -> None:
    encoder, _ = _encoder()
    embeddings = _encode(encoder, _image([[1, 2], [3, 4]], 4, order=[3, 0, 2, 1]))
    np.testing.assert_array_equal(embeddings[:, 0], [5, 2, 4, 3])


def test_rows_are_mixed_by_weights() -> None:
    """Each token of interpolated lines is a mixture, across batches of tiles."""
    encoder, _ = _encoder()
    order = np.array([[0, 3], [1, 1], [2, 0]], dtype=np.int64)
    image = _image([[1, 2], [3, 4]], 3, order=order)
    even, uneven = (
        replace(image, weights=np.array(shares, dtype=np.float32))
        for shares in ([[0.5, 0.5], [1, 0], [0.25, 0.75]], [[0, 1], [0.5, 0.5], [1, 0]])
    )
    np.testing.assert_array_equal(_encode(encoder, even)[:, 0], [3.5, 3, 2.5])
    np.testing.assert_array_equal(_encode(encoder, uneven)[:, 0], [5, 3, 4])
    few = replace(even, order=order + 2)
    with pytest.raises(BundleError, match="gives 4 rows for an image of 3 tokens"):
        _encode(encoder, few)


@pytest.mark.parametrize(("batch", "runs"), [(1, [[[9, 9]]]), (2, [[[9, 9]]]), (3, [[[1, 2], [3, 4], [9, 9]]])])
def test_only_tiles_that_changed_run(batch: int, runs: list[Any]) -> None:
    encoder, vision = _encoder(batch)
    _encode(encoder, _image([[1, 2], [3, 4], [5, 6]], 6))
    vision.runs.clear()
    changed = _image([[1, 2], [3, 4], [9, 9]], 6, order=[5, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(_encode(encoder, changed)[:, 0], [10, 2, 3, 4, 5, 10])
    assert [run["pixels"].tolist() for run in vision.runs] == runs


def test_equal_tiles_of_an_image_run_once() -> None:
    encoder, vision = _encoder()
    np.testing.assert_array_equal(_encode(encoder, _image([[1, 2]] * 3, 6))[:, 0], [2, 3] * 3)
    assert len(vision.runs) == 1


def test_computing_anew_asks_no_tile() -> None:
    encoder, vision = _encoder()
    image = _image([[1, 2], [3, 4]], 4)
    _encode(encoder, image)
    encoder.compute(encoder.identify(image))
    assert len(vision.runs) == 4
    assert encoder.cache.counts().tile_hits == 0


def test_tiles_of_an_image_that_cannot_be_are_not_kept() -> None:
    encoder, _ = _encoder()
    with pytest.raises(BundleError, match="rows"):
        _encode(encoder, _image([[1, 2], [3, 4]], 5))
    assert encoder.cache.counts().tiles == 0


def test_an_image_whose_tiles_are_known_need_not_be_encoded() -> None:
    """Whichever images they were in."""
    encoder, vision = _encoder()
    for pixels in ([[1, 2], [3, 4]], [[5, 6], [7, 8]]):
        _encode(encoder, _image(pixels, 4))
    vision.runs.clear()
    found = encoder.encode(encoder.identify(_image([[1, 2], [7, 8]], 4, order=[3, 2, 1, 0])))
    assert found.cached
    assert not vision.runs
    np.testing.assert_array_equal(found.embeddings[:, 0], [9, 8, 3, 2])
    assert not found.embeddings.flags.writeable


def test_tiles_take_the_place_of_their_image() -> None:
    encoder, _ = _encoder()
    _encode(encoder, _image([[1, 2], [3, 4]], 4))
    counts = encoder.cache.counts()
    assert (counts.images, counts.tiles, counts.bytes) == (0, 2, 4 * WIDTH * 4)


def test_mixed_rows_are_kept_as_an_image() -> None:
    """Their tiles would take more memory than they do."""
    encoder, vision = _encoder()
    order, weights = np.array([[0, 3]], np.int64), np.array([[0.5, 0.5]], np.float32)
    image = replace(_image([[1, 2], [3, 4]], 1), order=order, weights=weights)
    for _ in range(2):
        np.testing.assert_array_equal(_encode(encoder, image)[:, 0], [3.5])
    assert len(vision.runs) == 2
    assert (encoder.cache.counts().images, encoder.cache.counts().tiles) == (1, 0)


def test_tiles_that_exceed_the_cache_are_kept_as_an_image_that_does_not() -> None:
    encoder, vision = _encoder(capacity=2 * WIDTH * 4)
    image = _image([[1, 2], [3, 4]], 2, order=[0, 3])
    for _ in range(2):
        np.testing.assert_array_equal(_encode(encoder, image)[:, 0], [2, 5])
    assert len(vision.runs) == 2
    assert (encoder.cache.counts().images, encoder.cache.counts().tiles) == (1, 0)


def test_an_image_in_tiles_outlives_the_process_as_a_whole(tmp_path: Any) -> None:
    image = _image([[1, 2], [3, 4]], 4)
    for runs in (2, 0):
        encoder, vision = _encoder(store=DiskStore(tmp_path, 1 << 20))
        np.testing.assert_array_equal(_encode(encoder, image)[:, 0], [2, 3, 4, 5])
        assert len(vision.runs) == runs


def test_a_bad_file_of_an_image_in_tiles_is_forgotten(tmp_path: Any) -> None:
    image, store = _image([[1, 2], [3, 4]], 4), DiskStore(tmp_path, 1 << 20)
    encoder, vision = _encoder(store=store)
    store.save(encoder.identify(image).key, np.zeros((3, WIDTH), np.float32))
    np.testing.assert_array_equal(_encode(encoder, image)[:, 0], [2, 3, 4, 5])
    assert (encoder.cache.counts().images, encoder.cache.counts().tiles, len(vision.runs)) == (0, 2, 2)
    again, vision = _encoder(store=store)
    np.testing.assert_array_equal(_encode(again, image)[:, 0], [2, 3, 4, 5])
    assert not vision.runs


def test_an_image_of_one_tile_is_kept_once() -> None:
    encoder, _ = _encoder()
    _encode(encoder, _image([[1, 2]], 2))
    assert (encoder.cache.counts().images, encoder.cache.counts().tiles) == (1, 0)


def test_wrong_number_of_rows() -> None:
    encoder, _ = _encoder()
    with pytest.raises(BundleError, match="gives 4 rows for an image of 5 tokens"):
        _encode(encoder, _image([[1, 2], [3, 4]], 5))


def test_key_is_of_the_content() -> None:
    encoder, _ = _encoder()
    key = encoder.identify(_image([[1, 2]], 2)).key
    assert key == encoder.identify(_image([[1, 2]], 2)).key
    others = [
        _image([[1, 3]], 2),
        _image([[1], [2]], 2),
        _image([[1, 2]], 2, order=[0, 1]),
        _image([[1, 2]], 2, order=[1, 0]),
        PreparedImage({"pixels": np.array([[1, 2]], dtype=np.int16)}, 2, ""),
        PreparedImage({"other": np.array([[1, 2]], dtype=np.uint8)}, 2, ""),
    ]
    assert len({key, *(encoder.identify(other).key for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("batch", "order", "grid", "rows"),
    [
        (1, None, None, [2, 2, 2]),
        (2, None, None, [4, 2]),
        (3, None, None, []),  # all at once: the image
        (1, [5, 4, 3, 2, 1, 0], None, []),  # rows stand elsewhere
        (1, None, (2, 3), []),  # places have two dimensions
    ],
)
def test_parts_of_a_prompt_are_tiles(batch: int, order: Any, grid: Any, rows: list[int]) -> None:
    encoder, _ = _encoder(batch)
    image = replace(_image([[1, 2], [3, 4], [1, 2]], 6, order), grid=grid)
    found = encoder.identify(image)
    assert [part.rows for part in found.parts] == rows
    assert not rows or [part.key for part in found.parts] == list(found.tiles)
    assert batch > 1 or (found.tiles[0] == found.tiles[2] != found.tiles[1])


def test_key_is_of_the_bundle_too() -> None:
    keys = set()
    for identity in ("bundle a ort cpu", "bundle b ort cpu", "bundle a ort cuda"):
        vision = _Fake(_port("pixels", "N", 2), _port("image_features", "N", 2, WIDTH))
        projector = _Fake(_port("image_features", "N", 2, WIDTH), _port("image_embeddings", "N", 2, WIDTH))
        keys.add(ImageEncoder(vision, projector, ImageCache(0), identity, 1).identify(_image([[1, 2]], 2)).key)
    assert len(keys) == 3


def test_key_does_not_depend_on_memory_layout() -> None:
    encoder, _ = _encoder()
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    strided = PreparedImage({"pixels": np.asfortranarray(pixels)}, 2, "")
    assert encoder.identify(strided).key == encoder.identify(PreparedImage({"pixels": pixels}, 2, "")).key


def test_graphs_without_the_agreed_names() -> None:
    good = _Fake(_port("pixels", "N", 2), _port("image_features", "N", 2, WIDTH))
    bad = _Fake(_port("x", "N", 2), _port("y", "N", 2, WIDTH))
    for vision, projector in ((bad, good), (good, bad)):
        with pytest.raises(BundleError):
            ImageEncoder(vision, projector, ImageCache(0), "", 1)


def test_embeddings_of_different_images_differ(vlm: edgevlm_runtime.VLM, picture: Any) -> None:
    one, two = (vlm.pipeline.encoder.compute(vlm.pipeline.prepare(picture(i))).embeddings for i in (1, 2))
    assert one.shape == two.shape == (4, 32)
    assert np.abs(one - two).max() > 0.1
