"""Gemma 4 processing against transformers' own processor: pixels, places and placeholders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Gemma4Config
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.images import to_rgb

SPECIAL = ["<|image>", "<|image|>", "<image|>"]
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "most": {"max_soft_tokens": 1120, "patch_size": 4},
    "small": {"max_soft_tokens": 70, "patch_size": 4, "pooling_kernel_size": 2},
    "one-patch": {"max_soft_tokens": 70, "patch_size": 7, "pooling_kernel_size": 1, "resample": 2},
}
Case = tuple[CheckpointProcessor, images.ImageProcessor]


def config(parts: CheckpointProcessor, source: Gemma4ImageProcessorPil, **vision: int) -> Gemma4Config:
    start, token, end = parts.tokenizer.convert_tokens_to_ids(SPECIAL)
    sizes = {"patch_size": source.patch_size, "pooling_kernel_size": source.pooling_kernel_size, **vision}
    return Gemma4Config(vision_config=sizes, boi_token_id=start, image_token_id=token, eoi_token_id=end)


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def case(request: pytest.FixtureRequest, make_processor: Callable[..., CheckpointProcessor]) -> Case:
    source = Gemma4ImageProcessorPil(**SETTINGS[request.param])
    parts = make_processor(source, SPECIAL, "<|image|>")
    return parts, images.make_processor(translate(parts, config(parts, source)).image)


def check_parity(case: Case, image: Image.Image) -> None:
    """What transformers refuses is refused; all else is equal, patches of a token side by side."""
    parts, process = case
    source = parts.image_processor
    try:
        expected = source(images=to_rgb(image), do_rescale=False, return_tensors="np")
    except ValueError:
        with pytest.raises(ImageError, match="too thin"):
            process(image)
        return
    prepared, pool = process(image), source.pooling_kernel_size
    places = expected["image_position_ids"][0]
    count = int((places >= 0).all(-1).sum())
    columns = places[:count, 0].max() + 1
    raster = np.arange(count).reshape(-1, pool, columns // pool, pool).transpose(0, 2, 1, 3).reshape(-1)
    assert prepared.feeds["patches"].dtype == np.uint8
    np.testing.assert_array_equal(prepared.feeds["patches"], expected["pixel_values"][0, raster])
    np.testing.assert_array_equal(prepared.feeds["position_ids"], places[raster])
    tokens = int(expected["num_soft_tokens_per_image"][0])
    assert prepared.tokens == tokens == count // pool**2
    assert prepared.placeholder == SPECIAL[0] + SPECIAL[1] * tokens + SPECIAL[2]


def test_odd_images(case: Case, odd_image: Image.Image) -> None:
    check_parity(case, odd_image)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 1500), height=st.integers(1, 60), upright=st.booleans())
def test_any_size(
    case: Case, make_image: Callable[[int, int], Image.Image], width: int, height: int, upright: bool
) -> None:
    check_parity(case, make_image(height, width) if upright else make_image(width, height))


@pytest.mark.parametrize(
    ("source", "vision", "error", "words"),
    [
        ({}, {"patch_size": 14}, CheckpointError, "patches of 16 pooled by 3, in the model 14 by 3"),
        ({}, {"pooling_kernel_size": 2}, CheckpointError, "patches of 16 pooled by 3, in the model 16 by 2"),
        ({"max_soft_tokens": 1120}, {"position_embedding_size": 3000}, CheckpointError, "with 3000 positions"),
        ({"do_resize": False}, {}, UnsupportedModel, "do_resize switched off"),
    ],
)
def test_what_does_not_fit(
    make_processor: Callable[..., CheckpointProcessor],
    source: dict[str, Any],
    vision: dict[str, int],
    error: type[Exception],
    words: str,
) -> None:
    processor = Gemma4ImageProcessorPil(**source)
    parts = make_processor(processor, SPECIAL, "<|image|>")
    with pytest.raises(error, match=words) as raised:
        translate(parts, config(parts, processor, **vision))
    assert "\n" not in str(raised.value)
