"""LFM2-VL processing against transformers' own processor, Pillow in place of torchvision; where torchvision is
installed, against that as well."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Lfm2VlConfig
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor

from edgevlm_export.checkpoints import pillow_backend
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.images import to_rgb
from edgevlm_runtime.images.kinds import naflex
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

SPECIAL = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
SPECIAL += [f"<|img_row_{row}_col_{column}|>" for row in range(1, 4) for column in range(1, 4)]
SMALL = {"encoder_patch_size": 8, "tile_size": 48, "min_image_tokens": 2, "max_image_tokens": 9, "max_tiles": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": SMALL,
    "no-thumbnail": {**SMALL, "use_thumbnail": False, "tile_size": 16, "min_image_tokens": 1},
    "whole": {**SMALL, "do_image_splitting": False, "max_image_tokens": 40},
    "one-tile": {**SMALL, "min_tiles": 1, "max_tiles": 1},
    "merge-3": {**SMALL, "downsample_factor": 3, "max_pixels_tolerance": 1.3, "image_mean": [0.1, 0.5, 0.7]},
    "bicubic": {**SMALL, "resample": 3},
}


def config(settings: dict[str, Any], image_token_id: int, patches: int = 25) -> Lfm2VlConfig:
    return Lfm2VlConfig(
        vision_config={"patch_size": settings.get("encoder_patch_size", 16), "num_patches": patches},
        downsample_factor=settings.get("downsample_factor", 2),
        image_token_id=image_token_id,
    )


def image_processor(settings: dict[str, Any]) -> Any:
    return pillow_backend.find("Lfm2VlImageProcessorFast")(**settings)


Case = tuple[CheckpointProcessor, images.ImageProcessor]


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def case(request: pytest.FixtureRequest, make_processor: Callable[..., CheckpointProcessor]) -> Case:
    chosen = SETTINGS[request.param]
    parts = make_processor(image_processor(chosen), SPECIAL, "<image>")
    token = parts.tokenizer.convert_tokens_to_ids("<image>")
    return parts, images.make_processor(translate(parts, config(chosen, token)).image)


def raster(prepared: images.PreparedImage, number: int, grid: tuple[int, int], merge: int, name: str) -> Any:
    """A feed of one tile with its patches in raster order, [height * width, ...], as transformers has them."""
    height, width = grid
    rows = prepared.feeds[name][number, : height * width]
    split = rows.reshape(height // merge, width // merge, merge, merge, -1)
    return split.transpose(0, 2, 1, 3, 4).reshape(height * width, -1)


def check_parity(case: Case, image: Image.Image) -> None:
    """Pixels, shapes, padding and placeholder equal transformers'; what it makes a mess of is refused."""
    parts, process = case
    source, image = parts.image_processor, to_rgb(image)
    flags = {"return_row_col_info": True, "return_tensors": "np"}
    try:
        expected = source(images=image, do_rescale=False, do_normalize=False, **flags)
    except RuntimeError:  # tiles and a thumbnail longer than they
        expected = None
    if expected is None or expected["pixel_values"].shape[1] != expected["pixel_attention_mask"].shape[1]:
        assert max(image.size) > 8 * min(image.size)
        with pytest.raises(ImageError, match="too thin"):
            process(image)
        return
    prepared = process(image)
    patches, merge = prepared.feeds["patches"], source.downsample_factor
    grids = [tuple(shape) for shape in expected["spatial_shapes"].tolist()]
    assert patches.dtype == np.uint8
    assert len(patches) == len(grids)
    assert patches.shape[1] == max(height * width for height, width in grids)
    normalised = source(images=image, **flags)["pixel_values"]
    values = Normalization.of(source)
    mean, std = (np.array(each, np.float32) for each in (values.mean, values.std))
    for number, (height, width) in enumerate(grids):
        count = height * width
        found = raster(prepared, number, (height, width), merge, "patches")
        np.testing.assert_array_equal(found, expected["pixel_values"][number, :count])
        pixels = (found.reshape(count, -1, 3).astype(np.float32) * np.float32(values.rescale) - mean) / std
        np.testing.assert_allclose(pixels.reshape(count, -1), normalised[number, :count], rtol=0, atol=1e-5)
        valid = prepared.feeds["valid"][number]
        assert valid[:count].all()
        assert not valid[count:].any()
        assert expected["pixel_attention_mask"][number].sum() == count
        check_positions(prepared, number, (height, width), merge)
    joint = joint_processor(parts)
    placeholder = joint.replace_image_token(expected, 0, use_image_special_tokens=True)
    assert prepared.placeholder == placeholder
    assert prepared.tokens == placeholder.count("<image>") == sum(height * width for height, width in grids) // merge**2
    order = np.arange(prepared.tokens) if prepared.order is None else prepared.order
    np.testing.assert_array_equal(np.flatnonzero(prepared.feeds["valid"][:, :: merge**2]), order)


def check_positions(prepared: images.PreparedImage, number: int, grid: tuple[int, int], merge: int) -> None:
    """The two sets of weights are the tower's interpolation of its table."""
    rows, columns = (raster(prepared, number, grid, merge, name) for name in ("rows", "columns"))
    side = rows.shape[-1]
    table = torch.randn(1, 6, side, side, generator=torch.Generator().manual_seed(3))
    options = {"mode": "bilinear", "align_corners": False, "antialias": True}
    wanted = torch.nn.functional.interpolate(table, size=grid, **options).reshape(6, -1).T.numpy()
    found = np.einsum("pi,pj,cij->pc", rows, columns, table[0].numpy())
    np.testing.assert_allclose(found, wanted, atol=3e-6)


def joint_processor(parts: CheckpointProcessor) -> Any:
    return Lfm2VlProcessor(parts.image_processor, parts.tokenizer, chat_template=parts.chat_template)


def test_odd_images(case: Case, odd_image: Image.Image) -> None:
    check_parity(case, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_any_size(case: Case, make_image: Callable[[int, int], Image.Image], width: int, height: int) -> None:
    check_parity(case, make_image(width, height))


@pytest.mark.parametrize(
    "size", [(2600, 1300), (1300, 2600), (900, 900), (512, 1024), (530, 1025), (400, 2400), (2400, 400)]
)
def test_large_images(
    make_processor: Callable[..., CheckpointProcessor],
    make_image: Callable[[int, int], Image.Image],
    size: tuple[int, int],
) -> None:
    parts = make_processor(image_processor({}), SPECIAL, "<image>")
    token = parts.tokenizer.convert_tokens_to_ids("<image>")
    process = images.make_processor(translate(parts, config({}, token, 256)).image)
    check_parity((parts, process), make_image(*size))
    assert (len(process(make_image(*size)).feeds["patches"]) > 2) == (size != (512, 1024))


@given(st.integers(1, 40), st.integers(1, 90))
def test_interpolation(source: int, target: int) -> None:
    table = torch.eye(source)[None, :, :, None].repeat(1, 1, 1, 3)  # of width 1, PyTorch 2.13 gives something else
    options = {"mode": "bilinear", "align_corners": False, "antialias": True}
    wanted = torch.nn.functional.interpolate(table, size=(target, 3), **options)[0, :, :, 0].T
    found = naflex.interpolation(source, target)
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_tokens_equal_the_processors(
    make_processor: Callable[..., CheckpointProcessor], make_image: Callable[[int, int], Image.Image]
) -> None:
    """Two images in one prompt, one of them in tiles: the same token ids as the joint processor's."""
    parts = make_processor(image_processor(SMALL), SPECIAL, "<image>")
    made = translate(parts, config(SMALL, parts.tokenizer.convert_tokens_to_ids("<image>")))
    pictures = [make_image(190, 150), make_image(20, 80)]
    prepared = [images.make_processor(made.image)(picture) for picture in pictures]
    assert [len(image.feeds["patches"]) > 1 for image in prepared] == [True, False]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    content = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    messages = [{"role": "user", "content": content}]
    encoded = prompts.encode(messages, prepared)
    expected = joint_processor(parts)(text=prompts.render(messages), images=pictures, return_tensors="np")
    np.testing.assert_array_equal(encoded.token_ids, expected["input_ids"][0])


@pytest.mark.parametrize(
    ("given_settings", "model", "error", "words"),
    [
        ({"min_tiles": 1}, {}, UnsupportedModel, "from 1 to 10 tiles"),
        ({"tile_size": 40}, {}, UnsupportedModel, "multiple of patch_size"),
        ({"do_pad": False}, {}, UnsupportedModel, "do_pad"),
        ({}, {"encoder_patch_size": 14}, CheckpointError, "patches of 16 merged by 2, in the model 14 by 2"),
        ({}, {"patches": 24}, CheckpointError, "24 position embeddings is no square"),
    ],
)
def test_what_cannot_be_translated(
    make_processor: Callable[..., CheckpointProcessor],
    given_settings: dict[str, Any],
    model: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    parts = make_processor(image_processor(given_settings), SPECIAL, "<image>")
    token = parts.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(error, match=words):
        translate(parts, config(model, token, model.get("patches", 25)))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_is_within_one_level(odd_image: Image.Image) -> None:
    """transformers' class as it is: the same tiles, pixels within one level of 255 of Pillow's."""
    image = to_rgb(odd_image)
    own = pillow_backend.find("Lfm2VlImageProcessor").__mro__[1]
    flags = {"do_rescale": False, "do_normalize": False, "return_row_col_info": True, "return_tensors": "np"}
    thin = max(image.size) > 8 * min(image.size)
    for chosen in ({},) if thin else ({}, SMALL):  # strips are too long for the small one
        wanted, found = own(**chosen)(images=image, **flags), image_processor(chosen)(images=image, **flags)
        for name in ("spatial_shapes", "pixel_attention_mask", "image_rows", "image_cols", "image_sizes"):
            np.testing.assert_array_equal(found[name], wanted[name])
        assert np.abs(found["pixel_values"].astype(int) - wanted["pixel_values"].astype(int)).max() <= 1
