"""PaddleOCR-VL's processing against transformers' own PIL processor, and its learned positions against its tower's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import PaddleOCRVLConfig
from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import ImageError

SPECIAL = ["<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"]
SHAPES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    # patch, merge, side of the table's image, processor settings
    "published": (14, 2, 384, {"min_pixels": 112 * 112, "max_pixels": 350 * 350}),
    "tiny": (4, 2, 20, {"size": {"shortest_edge": 64, "longest_edge": 90 * 90}}),
    "merge-3": (3, 3, 100, {"size": {"shortest_edge": 81, "longest_edge": 70 * 70}, "resample": 2}),
}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, dict[str, Any]]:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def processor(shape: Any, make_processor: Callable[..., CheckpointProcessor]) -> CheckpointProcessor:
    patch, merge, _, more = shape
    source = PaddleOCRVLImageProcessorPil(patch_size=patch, merge_size=merge, **more)
    return make_processor(source, SPECIAL, "".join(SPECIAL))


@pytest.fixture(scope="module")
def process(shape: Any, processor: CheckpointProcessor) -> images.ImageProcessor:
    patch, merge, side, _ = shape
    vision = {"patch_size": patch, "spatial_merge_size": merge, "image_size": side}
    token = processor.tokenizer.convert_tokens_to_ids("<|IMAGE_PLACEHOLDER|>")
    return images.make_processor(
        translate(processor, PaddleOCRVLConfig(vision_config=vision, image_token_id=token)).image
    )


def check_parity(shape: Any, source: Any, process: images.ImageProcessor, image: Image.Image) -> None:
    """Pixels, positions, places and token count equal transformers', whose patches lie in raster order; what it refuses
    is refused."""
    patch, merge, side, _ = shape
    try:
        expected = source(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    except ValueError:
        with pytest.raises(ImageError, match="too thin"):
            process(image)
        return
    prepared = process(image)
    grid = torch.from_numpy(expected["image_grid_thw"])
    height, width = int(grid[0, 1]), int(grid[0, 2])
    together = np.arange(height * width).reshape(height // merge, merge, width // merge, merge)
    order = together.transpose(0, 2, 1, 3).reshape(-1)
    patches = prepared.feeds["patches"].reshape(-1, 3, patch, patch)
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(patches, expected["pixel_values"][order])
    np.testing.assert_array_equal(prepared.feeds["position_ids"], get_vision_position_ids(grid, 1).numpy()[order])
    indices, weights = get_vision_interpolation_indices_and_weights(grid, side // patch, align_corners=False)
    np.testing.assert_array_equal(prepared.feeds["grid_indices"], indices.numpy()[order])
    np.testing.assert_array_equal(prepared.feeds["grid_weights"], weights.numpy()[order])
    assert prepared.tokens == height * width // merge**2
    assert prepared.grid == (height // merge, width // merge)


def test_odd_images(shape: Any, processor: Any, process: Any, odd_image: Image.Image) -> None:
    check_parity(shape, processor.image_processor, process, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 450), height=st.integers(1, 450))
def test_any_size(shape: Any, processor: Any, process: Any, make_image: Any, width: int, height: int) -> None:
    check_parity(shape, processor.image_processor, process, make_image(width, height))


@pytest.mark.parametrize(("width", "height"), [(3, 9), (40, 2), (1, 1), (5, 450), (1, 201), (450, 1)])
def test_smaller_than_a_token(
    shape: Any, processor: Any, process: Any, make_image: Any, width: int, height: int
) -> None:
    check_parity(shape, processor.image_processor, process, make_image(width, height))
