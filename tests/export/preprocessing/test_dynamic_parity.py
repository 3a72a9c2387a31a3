"""InternVL processing against transformers' own image processor (PIL backend) and joint processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import InternVLConfig, PreTrainedTokenizerFast
from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as got_ocr2

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from edgevlm_runtime.images.kinds import dynamic
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

TILE, TOKENS = 32, 4
TOKEN = "<IMG_CONTEXT>"
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": TOKEN,
    "video_token": "<video>",
}
MEANS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "switched-on": {"crop_to_patches": True, "max_patches": 5},
    "two-at-least": {"min_patches": 2, "max_patches": 6},
    "one-tile": {"max_patches": 1},
    "no-grid": {"min_patches": 7, "max_patches": 5},
    "lanczos-without-resize": {"do_resize": False, "resample": 1},
}
MakeProcessor = Callable[..., CheckpointProcessor]
Case = tuple[CheckpointProcessor, images.ImageProcessor]


def make_parts(make_processor: MakeProcessor, tokens: int = TOKENS, tile: int = TILE, **given_settings: Any) -> Any:
    """A loaded processor whose tokenizer names its tokens as InternVL's does."""
    source = got_ocr2.GotOcr2ImageProcessorPil(size={"height": tile, "width": tile}, **MEANS, **given_settings)
    parts = make_processor(source, list(NAMED.values()), TOKEN, image_seq_length=tokens)
    named = PreTrainedTokenizerFast(
        tokenizer_object=parts.tokenizer.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=NAMED,
    )
    return dataclasses.replace(parts, tokenizer=named)


def config(parts: CheckpointProcessor, tile: int = TILE, patch: int = 8, **changes: Any) -> InternVLConfig:
    vision = {"image_size": [tile, tile], "patch_size": [patch, patch], **changes.pop("vision", {})}
    token = parts.tokenizer.convert_tokens_to_ids(TOKEN)
    return InternVLConfig(vision_config=vision, image_token_id=token, **changes)


@pytest.fixture(scope="module", params=SETTINGS)
def case(request: pytest.FixtureRequest, make_processor: MakeProcessor) -> Case:
    parts = make_parts(make_processor, **SETTINGS[request.param])
    return parts, images.make_processor(translate(parts, config(parts)).image)


def check_parity(case: Case, image: Image.Image) -> None:
    """Tiles and placeholder equal those of the joint processor, which cuts whatever the image processor says."""
    parts, process = case
    prepared, joint = process(image), join(parts, config(parts))
    text = f"{TOKEN} {TOKEN}"  # two images: what belongs to which is the processor's affair as well
    pair, quiet = [image, Image.new("RGB", (5, 5))], {"do_rescale": False, "do_normalize": False}
    expected = joint(text=text, images=pair, return_tensors="np", **quiet)
    pixels = prepared.feeds["pixels"]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), expected["pixel_values"][: len(pixels)])
    other = process(pair[1])
    assert len(pixels) + len(other.feeds["pixels"]) == len(expected["pixel_values"])
    values = Normalization.of(parts.image_processor)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (values.mean, values.std))
    normalised = (pixels.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(values.rescale) - mean) / std
    wanted = joint(text=text, images=pair, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(normalised, wanted[: len(pixels)], rtol=0, atol=1e-6)
    ids = parts.tokenizer(f"{prepared.placeholder} {other.placeholder}")["input_ids"]
    assert ids == expected["input_ids"][0].tolist()
    assert prepared.tokens == prepared.placeholder.count(TOKEN) == TOKENS * len(pixels)


def test_odd_images(case: Case, odd_image: Image.Image) -> None:
    check_parity(case, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_any_size(case: Case, make_image: Callable[[int, int], Image.Image], width: int, height: int) -> None:
    check_parity(case, make_image(width, height))


@pytest.mark.parametrize("size", [(2000, 1000), (777, 2049), (448, 448), (1, 1), (2400, 400), (400, 2400), (900, 900)])
def test_the_real_sizes(
    make_processor: MakeProcessor, make_image: Callable[[int, int], Image.Image], size: tuple[int, int]
) -> None:
    parts = make_parts(make_processor, 256, 448)
    process = images.make_processor(translate(parts, config(parts, 448, 14)).image)
    flags = {"do_rescale": False, "do_normalize": False, "crop_to_patches": True, "return_tensors": "np"}
    expected = parts.image_processor(images=make_image(*size), **flags)
    prepared = process(make_image(*size))
    np.testing.assert_array_equal(prepared.feeds["pixels"].transpose(0, 3, 1, 2), expected["pixel_values"])
    assert prepared.tokens == 256 * expected["num_patches"][0]


@settings(max_examples=300, deadline=None)
@given(
    width=st.one_of(st.integers(1, 20_000), st.integers(1, 40).map(lambda k: k * 448)),
    height=st.one_of(st.integers(1, 20_000), st.integers(1, 40).map(lambda k: k * 448)),
    tile=st.sampled_from([448, 384, 32]),
    limits=st.tuples(st.integers(1, 6), st.integers(6, 40)),
)
def test_the_nearest_grid(width: int, height: int, tile: int, limits: tuple[int, int]) -> None:
    """Over sizes too large to resize in a test."""
    wanted = got_ocr2.get_optimal_tiled_canvas((height, width), (tile, tile), *limits)
    grids = got_ocr2.get_all_supported_aspect_ratios(*limits)
    assert dynamic.nearest_grid(width, height, tile, grids) == wanted


def test_tokens_equal_the_processors(
    make_processor: MakeProcessor, make_image: Callable[[int, int], Image.Image]
) -> None:
    """Two images in one prompt: the same token ids as the joint processor's, and spans that are the image tokens."""
    parts = make_parts(make_processor)
    made = translate(parts, config(parts))
    pictures = [make_image(90, 50), make_image(20, 80)]
    prepared = [images.make_processor(made.image)(picture) for picture in pictures]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    content = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    messages = [{"role": "user", "content": content}]
    encoded = prompts.encode(messages, prepared)
    expected = join(parts, config(parts))(text=prompts.render(messages), images=pictures, return_tensors="np")
    np.testing.assert_array_equal(encoded.token_ids, expected["input_ids"][0])
    rows = np.concatenate([np.arange(span.start, span.stop) for span in encoded.images])
    np.testing.assert_array_equal(rows, np.flatnonzero(encoded.token_ids == made.prompt.image_token_id))


@pytest.mark.parametrize(
    ("given_settings", "changes", "error", "words"),
    [
        ({}, {"vision": {"image_size": [64, 64]}}, CheckpointError, "tiles of 32 x 32 pixels for a vision tower of 64"),
        ({}, {"vision": {"image_size": [32, 64]}}, CheckpointError, "must be one square"),
        ({}, {"downsample_ratio": 0.25}, CheckpointError, "image_seq_length is 4 .* the model makes 1 of a tile"),
        ({"max_patches": 1, "do_resize": False}, {}, UnsupportedModel, "do_resize switched off"),
        ({"max_patches": 10**9}, {}, UnsupportedModel, "max_patches 1000000000, where 1024 are possible"),
    ],
)
def test_what_cannot_be_translated(
    make_processor: MakeProcessor,
    given_settings: dict[str, Any],
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    parts = make_parts(make_processor, **given_settings)
    with pytest.raises(error, match=words):
        translate(parts, config(parts, **changes))


def test_a_tokenizer_without_names(make_processor: MakeProcessor) -> None:
    parts = make_parts(make_processor)
    source = parts.image_processor
    nameless = make_processor(source, list(NAMED.values()), TOKEN, image_seq_length=TOKENS)
    with pytest.raises(CheckpointError, match=r"does not name the tokens of an image: checkpoint: .*_image_token"):
        translate(nameless, config(parts))
