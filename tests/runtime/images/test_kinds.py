"""Kinds of image processing as the manifest names them. Their pixels are compared with transformers in tests/export."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import BundleError, ImageError
from edgevlm_runtime.images import make_processor

OPTIONS: dict[str, dict[str, Any]] = {
    "fixed": {
        "image_token": "<image>",
        "tokens": 4,
        "height": 28,
        "width": 28,
        "shortest_edge": 28,
        "center_crop": True,
    },
    "tiles": {"image_token": "<image>", "tokens_per_tile": 4, "tile": 16, "longest_edge": 64},
    "dynamic": {"image_token": "<image>", "tokens_per_tile": 4, "tile": 16, "grids": [[1, 1], [2, 1], [1, 2]]},
    "anyres": {
        "image_token": "<image>",
        "tile": 16,
        "side": 2,
        "sizes": [[16, 32], [32, 32], [48, 16]],
        "most_tiles": 2,
    },
    "native": {"image_token": "<image>", "patch_size": 7, "window_size": 56},
    "naflex": {"image_token": "<image>", "grid_side": 4, "grids": [[2, 1], [1, 2]], "patch_size": 8, "tile": 48},
    "pooled": {"image_token": "<image>", "start": "<s>", "end": "<e>", "patch_size": 4, "max_tokens": 20},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_different_images_give_different_feeds(kind: str) -> None:
    process = make_processor(ImageProcessing(kind, OPTIONS[kind]))
    black, white = (process(Image.new("RGB", (50, 40), color)) for color in ("black", "white"))
    name = "patches" if kind in {"native", "naflex", "pooled"} else "pixels"
    assert black.feeds[name].dtype == np.uint8
    assert not np.array_equal(black.feeds[name], white.feeds[name])
    assert black.placeholder.count("<image>") == black.tokens == white.tokens


@pytest.mark.parametrize("kind", OPTIONS)
def test_feeds_are_contiguous_and_the_images_own(kind: str) -> None:
    image = Image.new("RGB", (28, 28), "red")
    prepared = make_processor(ImageProcessing(kind, OPTIONS[kind]))(image)
    before = {name: feed.copy() for name, feed in prepared.feeds.items()}
    image.paste((0, 255, 0), (0, 0, 28, 28))
    for name, feed in prepared.feeds.items():
        assert feed.flags.c_contiguous
        np.testing.assert_array_equal(feed, before[name])


@pytest.mark.parametrize("kind", ["base", "load", "limits", "missing", "a\nb", "..manifest", "", "fixed.Processor"])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(BundleError, match="unknown kind of image processing") as raised:
        make_processor(ImageProcessing(kind, {}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("fixed", {"height": "28"}, "Expected `int`, got `str`"),
        ("fixed", {"height": 0}, "must be positive"),
        ("fixed", {"sharpen": True}, "options this runtime does not know: 'sharpen'"),
        ("fixed", {"sharp\nen": True}, "options this runtime does not know: 'sharp.*nen'"),
        ("fixed", {"resample": 17}, "17 is not a valid Resampling"),
        ("fixed", {"exact": [28, 28]}, "exclude each other"),
        ("fixed", {"pad_color": [1, 2]}, "length 3"),
        ("tiles", {"tile": -1}, "must be positive"),
        ("tiles", {"exact": [5, 0], "longest_edge": None}, "must be positive"),
        ("tiles", {"exact": [5, 5]}, "exclude each other"),
        ("dynamic", {"tile": 0}, "must be positive"),
        ("dynamic", {"grids": []}, "one at least"),
        ("dynamic", {"grids": [[0, 1]]}, "from 1 to"),
        ("dynamic", {"grids": [[1 << 40, 2]]}, "from 1 to"),
        ("dynamic", {"end": "x<image>"}, "must not have the image token"),
        ("dynamic", {"resample": 17}, "17 is not a valid Resampling"),
        ("anyres", {"sizes": []}, "must not be empty"),
        ("anyres", {"sizes": [[16, 40]]}, "multiples of tile"),
        ("anyres", {"sizes": [[16, 0]]}, "must be positive"),
        ("anyres", {"most_tiles": 0}, "most_tiles must be positive"),
        ("native", {"window_size": 13}, "at least one merged patch"),
        ("native", {"patch_size": 0}, "must be positive"),
        ("native", {"within": [0, 5]}, "within_height must be positive"),
        ("native", {"within": [5]}, "length 2"),
        ("native", {"position_grid": -1}, "position_grid must be positive"),
        ("native", {"window_size": -56}, "window_size must be positive"),
        ("native", {"row_end": "a<image>"}, "row_end must not have the image token"),
        ("native", {"image_token": ""}, "must not be empty"),
        ("naflex", {"start": "<image>"}, "start must not have the image token"),
        ("naflex", {"thumbnail_token": "<image>"}, "thumbnail_token must not have the image token"),
        ("pooled", {"pool_size": 0}, "must be positive"),
        ("pooled", {"max_tokens": -1}, "must be positive"),
        ("pooled", {"end": "<image>"}, "end must not have the image token"),
        ("tiles", {"fake_token": "<image>"}, "fake_token must not have the image token"),
        ("naflex", {"grid_side": 0}, "must be positive"),
        ("naflex", {"tile": 40}, "multiple of patch_size"),
        ("naflex", {"grids": [[1, 1]]}, "from 2 to"),
        ("naflex", {"grids": [[1 << 40, 2]]}, "from 2 to"),
        ("naflex", {"min_tokens": 300}, "max_tokens no less"),
        ("naflex", {"tolerance": 0.0}, "tolerance must be positive"),
    ],
)
def test_bad_options(kind: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words) as raised:
        make_processor(ImageProcessing(kind, {**OPTIONS[kind], **change}))
    assert kind in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_options() -> None:
    with pytest.raises(BundleError, match="missing required field `tokens`"):
        make_processor(ImageProcessing("fixed", {"image_token": "<image>"}))


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("fixed", (1, 3_000_000), "too many pixels to process safely"),
        ("fixed", (3_000_000, 1), "too many pixels to process safely"),
        ("tiles", (10_000, 9_000), "too many pixels to process safely"),
        ("native", (10, 2001), "too thin"),
        ("native-within", (1, 2001), "too thin"),
    ],
)
def test_sizes_that_need_too_much_memory(kind: str, size: tuple[int, int], words: str) -> None:
    kind, _, within = kind.partition("-")
    changes = {"tiles": {"longest_edge": None, "tile": 2048}, "native": {"within": [64, 64]} if within else {}}
    options = {**OPTIONS[kind], **changes.get(kind, {})}
    image = Image.new("L", size)
    with pytest.raises(ImageError, match=words):
        make_processor(ImageProcessing(kind, options))(image)


def test_padding_to_a_square_is_bounded() -> None:
    options = {**OPTIONS["fixed"], "pad_color": [122, 116, 104]}
    with pytest.raises(ImageError, match="padding of an image of 20000 x 2 pixels to a square"):
        make_processor(ImageProcessing("fixed", options))(Image.new("L", (20_000, 2)))


def test_an_image_of_another_size_without_resize() -> None:
    options = {"image_token": "<image>", "tokens": 4, "height": 28, "width": 30}
    process = make_processor(ImageProcessing("fixed", options))
    assert process(Image.new("RGB", (30, 28))).feeds["pixels"].shape == (1, 28, 30, 3)
    with pytest.raises(ImageError, match="exactly 30 x 28 pixels, this one comes to 28 x 30"):
        process(Image.new("RGB", (28, 30)))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("fixed", {"tokens": 2**31}),
        ("fixed", {"height": 10**9, "exact": None, "center_crop": True}),
        ("fixed", {"image_token": "x" * 5000}),
        ("tiles", {"tokens_per_tile": 2**40}),
        ("tiles", {"edge_limit": 10**6}),
        ("tiles", {"fake_token": "x" * 10**6}),
        ("dynamic", {"tokens_per_tile": 2**40}),
        ("dynamic", {"tile": 10**6}),
        ("dynamic", {"start": "x" * 10**6}),
        ("anyres", {"sizes": [[16, 2**30]]}),
        ("anyres", {"side": 2**20}),
        ("native", {"patch_size": 2**31}),
        ("native", {"window_size": 2**40}),
        ("native", {"within": [8, 2**20]}),
        ("native", {"row_end": "x" * 5000}),
        ("native", {"patch_size": 1, "merge_size": 1, "window_size": 5000}),
        ("native", {"position_grid": 2**64 - 1}),
        ("native", {"merge_size": 255, "window_size": 2**20 + 1}),
        ("naflex", {"max_tokens": 2**40}),
        ("naflex", {"max_tokens": 2**20, "patch_size": 1, "merge_size": 1}),
        ("naflex", {"max_tokens": 2**12, "grid_side": 8192}),
        ("naflex", {"max_tokens": 2**16, "tile": 16, "grids": [[1000, 1]], "tolerance": 1e-9}),
        ("naflex", {"max_tokens": 2**9, "patch_size": 200, "tile": 400}),
        ("pooled", {"max_tokens": 2**20}),
        ("pooled", {"pool_size": 2**31}),
        ("pooled", {"start": "x" * 5000}),
    ],
)
def test_options_that_would_take_all_memory(kind: str, change: dict[str, Any]) -> None:
    """Found by `make fuzz`: a bundle must not make a device run out of memory."""
    with pytest.raises(BundleError, match=r"bad options: .*(at most|window)"):
        make_processor(ImageProcessing(kind, {**OPTIONS[kind], **change}))


def test_windows_that_would_take_all_memory() -> None:
    """Every window is padded to its full size."""
    options = {**OPTIONS["native"], "patch_size": 1, "merge_size": 1, "window_size": 1000, "resize": False}
    with pytest.raises(ImageError, match="1100 x 2 pixels comes to 2000000 parts"):
        make_processor(ImageProcessing("native", options))(Image.new("L", (1100, 2)))
    options |= {"patch_size": 64, "window_size": 8192}
    with pytest.raises(ImageError, match="windows of an image of 8256 x 64 pixels"):
        make_processor(ImageProcessing("native", options))(Image.new("L", (8256, 64)))


SIDES = st.integers(1, 80) | st.sampled_from([199, 200, 201, 1000, 5000, 30_000])


@given(kind=st.sampled_from([*OPTIONS, "native-within"]), size=st.tuples(SIDES, SIDES))
@settings(max_examples=150, deadline=None)
def test_any_size_gives_its_tokens_or_one_line(kind: str, size: tuple[int, int]) -> None:
    """Single pixels, strips and large images; the rows that are asked for are as many as the placeholder has tokens."""
    assume(size[0] * size[1] <= 2_000_000)
    kind, _, within = kind.partition("-")
    options = {**OPTIONS[kind], **({"within": [70, 56], "window_size": 0, "row_end": "|"} if within else {})}
    refused: list[str] = []
    try:
        prepared = make_processor(ImageProcessing(kind, options))(Image.new("L", size))
    except ImageError as error:
        refused.append(str(error))
    if refused:
        assert "\n" not in refused[0]
        assert max(size) > 50 * min(size), "only strips may be"
        return
    assert prepared.tokens == prepared.placeholder.count("<image>") > 0
    assert prepared.order is None or len(prepared.order) == prepared.tokens
    assert prepared.weights is None or prepared.weights.shape == prepared.order.shape  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "change"), [("tiles", {"tile": 1}), ("native", {"patch_size": 1, "merge_size": 1})])
def test_images_that_come_to_too_many_parts(kind: str, change: dict[str, Any]) -> None:
    free = {"tiles": {"longest_edge": None}, "native": {"window_size": 0, "max_pixels": 2**31}}[kind]
    process = make_processor(ImageProcessing(kind, {**OPTIONS[kind], **free, **change}))
    with pytest.raises(ImageError, match="1500 x 1500 pixels comes to"):
        process(Image.new("L", (1500, 1500)))


def test_premultiplied_grey_is_converted() -> None:
    """Which Pillow itself has no conversion to RGB for."""
    process = make_processor(ImageProcessing("fixed", OPTIONS["fixed"]))
    image = Image.new("LA", (5, 5), (100, 128))
    pixels = [process(one).feeds["pixels"] for one in (image.convert("La"), image.convert("La").convert("LA"))]
    np.testing.assert_array_equal(*pixels)


def test_images_that_cannot_be_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Image.Image, mode: str) -> None:
        raise ValueError(f"conversion to {mode} not supported")

    process = make_processor(ImageProcessing("fixed", OPTIONS["fixed"]))
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "convert", failing)
        with pytest.raises(ImageError, match="mode HSV to RGB: conversion"):
            process(Image.new("HSV", (5, 5)))
    with pytest.raises(ImageError, match="empty"):
        process(Image.new("RGB", (5, 0)))


def test_text_behind_rows_by_hand() -> None:
    """5 x 9 pixels brought within 4 x 6 are 3 x 6, and 4 x 6 in whole tokens of 2 x 2."""
    options = {"image_token": "<image>", "patch_size": 1, "merge_size": 2, "within": [6, 4]}
    process = make_processor(ImageProcessing("native", {**options, "row_end": "<row>", "image_end": "<end>"}))
    prepared = process(Image.new("RGB", (5, 9)))
    assert prepared.grid == (3, 2)
    assert prepared.placeholder == "<image><image><row><image><image><row><image><image><end>"
    assert prepared.tokens == 6
    assert process(Image.new("RGB", (2, 1))).placeholder == "<image><end>"
    assert make_processor(ImageProcessing("native", options))(Image.new("RGB", (4, 6))).placeholder == "<image>" * 6


def test_native_windows_by_hand() -> None:
    """3 x 2 image tokens in windows of 2 x 2: two windows, the second half empty."""
    options = {"image_token": "<image>", "patch_size": 1, "merge_size": 1, "window_size": 2, "min_pixels": 0}
    pixels = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    prepared = make_processor(ImageProcessing("native", {**options, "resize": False}))(Image.fromarray(pixels))
    assert prepared.grid == (3, 2)
    assert prepared.feeds["valid"].tolist() == [True, True, True, True, True, True, False, False]
    assert prepared.feeds["patches"][:, 0].tolist() == [0, 3, 6, 9, 12, 15, 0, 0]
    assert prepared.feeds["position_ids"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [0, 0], [0, 0]]
    assert prepared.order is not None
    assert prepared.order.tolist() == [0, 1, 2, 3, 4, 5]
    wide = make_processor(ImageProcessing("native", {**options, "resize": False}))(
        Image.fromarray(pixels.reshape(2, 3, 3))
    )
    assert wide.feeds["patches"][:, 0].tolist() == [0, 3, 9, 12, 6, 0, 15, 0]
    assert wide.order is not None
    assert wide.order.tolist() == [0, 1, 4, 2, 3, 6]
