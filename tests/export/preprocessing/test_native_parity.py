"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5 processing against transformers' own PIL processor and window index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3_5Config, Qwen3VLConfig
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

SPECIAL = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]


def config(image_token_id: int, patch: int, merge: int, window: int) -> Any:
    vision = {"patch_size": patch, "spatial_merge_size": merge, "depth": 1, "num_heads": 2}
    if window:
        return Qwen2_5_VLConfig(vision_config={**vision, "window_size": window}, image_token_id=image_token_id)
    if side := GRIDS.get((patch, merge)):
        learned = {"num_position_embeddings": side**2}
        kind = Qwen3_5Config if patch == NEWEST else Qwen3VLConfig
        return kind(vision_config={**vision, **learned}, image_token_id=image_token_id)
    return Qwen2VLConfig(vision_config=vision, image_token_id=image_token_id)


GRIDS = {(16, 2): 48, (3, 2): 7, (12, 2): 48}
"""Sides of Qwen3-VL's and Qwen3.5's grids of learned positions, by patch and merge."""
NEWEST = 12
"""The patch size that stands for Qwen3.5 here; its own is Qwen3-VL's."""
SHAPES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    # patch, merge, window, processor settings
    "qwen2.5": (14, 2, 112, {"size": {"shortest_edge": 56 * 56, "longest_edge": 300 * 300}}),
    "qwen2.5-tiny": (4, 2, 24, {"size": {"shortest_edge": 64, "longest_edge": 90 * 90}}),
    "qwen2.5-merge-3": (3, 3, 20, {"size": {"shortest_edge": 81, "longest_edge": 70 * 70}, "resample": 2}),
    "qwen3": (16, 2, 0, {"size": {"shortest_edge": 64 * 64, "longest_edge": 300 * 300}}),
    "qwen3.5": (12, 2, 0, {"size": {"shortest_edge": 48 * 48, "longest_edge": 200 * 200}}),
    "qwen3-tiny": (3, 2, 0, {"size": {"shortest_edge": 36, "longest_edge": 70 * 70}}),
    "qwen2": (14, 2, 0, {"size": {"shortest_edge": 56 * 56, "longest_edge": 300 * 300}}),
}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, dict[str, Any]]:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def processor(
    shape: tuple[int, int, int, dict[str, Any]], make_processor: Callable[..., CheckpointProcessor]
) -> CheckpointProcessor:
    patch, merge, _, more = shape
    source = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=merge, **more)
    return make_processor(source, SPECIAL, "<|vision_start|><|image_pad|><|vision_end|>")


@pytest.fixture(scope="module")
def process(shape: tuple[int, int, int, dict[str, Any]], processor: CheckpointProcessor) -> images.ImageProcessor:
    token_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return images.make_processor(translate(processor, config(token_id, *shape[:3])).image)


def as_transformers(prepared: PreparedImage, merge: int) -> tuple[Any, Any]:
    """Patches and position ids with padding and window order undone: raster order of image tokens."""
    unit = merge**2
    order = np.arange(prepared.tokens) if prepared.order is None else prepared.order
    rows = (order[:, None] * unit + np.arange(unit)).reshape(-1)
    valid = prepared.feeds.get("valid", np.ones(len(prepared.feeds["patches"]), np.bool_))
    assert valid[rows].all()
    assert valid.sum() == rows.size
    return prepared.feeds["patches"][rows], prepared.feeds["position_ids"][rows]


def check_parity(
    shape: tuple[int, int, int, dict[str, Any]], source: Any, process: images.ImageProcessor, image: Image.Image
) -> None:
    """Pixels, positions, window order and token count equal transformers'; what it refuses is refused."""
    patch, merge, window, _ = shape
    try:
        expected = source(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    except ValueError:
        assert max(image.size) > 200 * min(image.size)
        with pytest.raises(ImageError, match="too thin"):
            process(image)
        return
    prepared = process(image)
    grid = torch.from_numpy(expected["image_grid_thw"])
    patches, position_ids = as_transformers(prepared, merge)
    assert patches.dtype == np.uint8
    # Both frames of transformers' patches [n, channel, frame, row, column] are this one frame.
    frames = expected["pixel_values"].reshape(len(patches), 3, 2, patch, patch)
    for frame in range(2):
        np.testing.assert_array_equal(patches.reshape(-1, 3, patch, patch), frames[:, :, frame])
    np.testing.assert_array_equal(position_ids, get_vision_position_ids(grid, merge).numpy())
    assert prepared.grid == (grid[0, 1] // merge, grid[0, 2] // merge)
    assert prepared.tokens == grid[0].prod() // merge**2
    if window:
        check_windows(prepared, grid, shape)
    else:
        assert prepared.order is None
        learned = {"grid_indices", "grid_weights"} if (patch, merge) in GRIDS else set()
        assert set(prepared.feeds) == {"patches", "position_ids", *learned}
        if learned:
            check_places(prepared, grid, merge, GRIDS[patch, merge])


def check_places(prepared: PreparedImage, grid: torch.Tensor, merge: int, side: int) -> None:
    """Places in the grid of learned positions and their weights, to the bit."""
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid, side, align_corners=True, spatial_merge_size=merge
    )
    np.testing.assert_array_equal(prepared.feeds["grid_indices"], indices.numpy())
    np.testing.assert_array_equal(prepared.feeds["grid_weights"], weights.numpy())
    assert prepared.feeds["grid_weights"].dtype == np.float32


def check_windows(prepared: PreparedImage, grid: torch.Tensor, shape: tuple[int, int, int, dict[str, Any]]) -> None:
    patch, merge, window, _ = shape
    index, ends = get_vision_window_index(grid, merge, window, patch)
    length = (window // merge // patch * merge) ** 2
    valid = prepared.feeds["valid"].reshape(-1, length)
    np.testing.assert_array_equal(valid.sum(1), np.diff(ends.numpy()))
    assert not prepared.feeds["patches"].reshape(*valid.shape, -1)[~valid].any()
    groups = np.flatnonzero(prepared.feeds["valid"].reshape(-1, merge**2).all(1))
    assert prepared.order is not None
    np.testing.assert_array_equal(prepared.order[index.numpy()], groups)


def test_odd_images(
    shape: tuple[int, int, int, dict[str, Any]],
    processor: CheckpointProcessor,
    process: images.ImageProcessor,
    odd_image: Image.Image,
) -> None:
    check_parity(shape, processor.image_processor, process, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 450), height=st.integers(1, 450))
def test_any_size(
    shape: tuple[int, int, int, dict[str, Any]],
    processor: CheckpointProcessor,
    process: images.ImageProcessor,
    make_image: Callable[[int, int], Image.Image],
    width: int,
    height: int,
) -> None:
    check_parity(shape, processor.image_processor, process, make_image(width, height))


def test_normalised_pixels(
    processor: CheckpointProcessor, process: images.ImageProcessor, shape: Any, make_image: Any
) -> None:
    patch, merge, _, _ = shape
    patches, _ = as_transformers(process(make_image(133, 70)), merge)
    values = Normalization.of(processor.image_processor)
    mean, std = (np.array(each, np.float32)[:, None] for each in (values.mean, values.std))
    normalised = (patches.reshape(-1, 3, patch**2).astype(np.float32) * np.float32(values.rescale) - mean) / std
    expected = processor.image_processor(images=make_image(133, 70), return_tensors="np")["pixel_values"]
    expected = expected.reshape(-1, 3, 2, patch**2)[:, :, 0]
    np.testing.assert_allclose(normalised, expected, rtol=0, atol=1e-6)


def test_tokens_equal_the_processors(
    shape: Any, processor: CheckpointProcessor, process: images.ImageProcessor, make_image: Any
) -> None:
    made = translate(processor, config(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>"), *shape[:3]))
    # Without its video processor, which needs torchvision; image tokens are expanded just the same.
    reference = object.__new__(Qwen2_5_VLProcessor)
    reference.image_processor, reference.tokenizer = processor.image_processor, processor.tokenizer
    reference.image_token = "<|image_pad|>"
    pictures = [make_image(90, 50), make_image(20, 80)]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": " part"}]}]
    encoded = prompts.encode(messages, [process(picture) for picture in pictures])
    batch = reference.image_processor(images=pictures, return_tensors="np")
    texts, _ = reference.get_text_with_replacements(
        [prompts.render(messages)], [reference.replace_image_token(batch, index) for index in range(2)]
    )
    np.testing.assert_array_equal(encoded.token_ids, processor.tokenizer(texts)["input_ids"][0])
    grids = [(int(h) // shape[1], int(w) // shape[1]) for _, h, w in batch["image_grid_thw"]]
    assert [(span.image, span.row, span.grid, span.length) for span in encoded.images] == [
        (index, 0, grid, grid[0] * grid[1]) for index, grid in enumerate(grids)
    ]


def test_without_resize(make_processor: Callable[..., CheckpointProcessor], make_image: Any) -> None:
    source = Qwen2VLImageProcessorPil(do_resize=False)
    parts = make_processor(source, SPECIAL, "<|image_pad|>")
    made = translate(parts, config(parts.tokenizer.convert_tokens_to_ids("<|image_pad|>"), 14, 2, 112))
    process = images.make_processor(made.image)
    check_parity((14, 2, 112, {}), source, process, make_image(84, 140))
    with pytest.raises(ImageError, match="multiples of 28 pixels, this one is 84 x 139"):
        process(make_image(84, 139))


def test_what_does_not_belong_together(make_processor: Callable[..., CheckpointProcessor]) -> None:
    parts = make_processor(Qwen2VLImageProcessorPil(patch_size=16), SPECIAL, "<|image_pad|>")
    with pytest.raises(CheckpointError, match="patches of 16 merged by 2, in the model 14 by 2"):
        translate(parts, config(parts.tokenizer.convert_tokens_to_ids("<|image_pad|>"), 14, 2, 112))
