"""Pixtral and Mistral 3 processing against transformers' own PIL processor and joint processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPVisionConfig, LlavaConfig, Mistral3Config, PixtralVisionConfig
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.images import to_rgb
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

SPECIAL = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
SHAPES: dict[str, tuple[int, int, dict[str, Any]]] = {
    # patch, merge, processor settings
    "pixtral": (16, 1, {"size": {"longest_edge": 1024}}),
    "mistral3": (14, 2, {"size": {"longest_edge": 1540}}),
    "small": (5, 1, {"size": {"longest_edge": 64}, "resample": 2}),
    "merge-3": (4, 3, {"size": {"longest_edge": 70}, "image_mean": [0.1, 0.5, 0.7]}),
    "oblong": (6, 2, {"size": {"height": 50, "width": 90}}),
}
Shape = tuple[int, int, dict[str, Any]]


def config(image_token_id: int, patch: int, merge: int) -> Any:
    vision = PixtralVisionConfig(patch_size=patch)
    if merge == 1:
        return LlavaConfig(
            vision_config=vision, image_token_index=image_token_id, vision_feature_select_strategy="full"
        )
    return Mistral3Config(vision_config=vision, image_token_index=image_token_id, spatial_merge_size=merge)


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def processor(shape: Shape, make_processor: Callable[..., CheckpointProcessor]) -> CheckpointProcessor:
    return made(make_processor, *shape)


def made(
    make_processor: Callable[..., CheckpointProcessor], patch: int, merge: int, options: dict[str, Any]
) -> CheckpointProcessor:
    """`patch` of the image processor's own is not what counts."""
    source = PixtralImageProcessorPil(**{"patch_size": {"height": 9, "width": 9}, **options})
    return make_processor(
        source, SPECIAL, "[IMG]", processor_class="PixtralProcessor", patch_size=patch, spatial_merge_size=merge
    )


def model(processor: CheckpointProcessor, patch: int, merge: int) -> Any:
    return config(processor.tokenizer.convert_tokens_to_ids("[IMG]"), patch, merge)


@pytest.fixture(scope="module")
def process(shape: Shape, processor: CheckpointProcessor) -> images.ImageProcessor:
    return images.make_processor(translate(processor, model(processor, *shape[:2])).image)


def check_parity(
    shape: Shape, processor: CheckpointProcessor, process: images.ImageProcessor, image: Image.Image
) -> None:
    """Pixels, positions and placeholder equal transformers'; strips that it cannot resize are refused."""
    patch, merge, _ = shape
    source, image = processor.image_processor, to_rgb(image)
    options = {"patch_size": patch * merge, "return_tensors": "np"}
    try:
        expected = source(images=image, do_rescale=False, do_normalize=False, **options)
    except ValueError:  # a side of no pixels
        assert max(image.size) > 50 * min(image.size)
        with pytest.raises(ImageError, match="too thin"):
            process(image)
        return
    prepared = process(image)
    height, width = (int(side) for side in expected["image_sizes"][0])
    rows, columns = height // patch, width // patch
    assert prepared.grid == (rows // merge, columns // merge)
    assert prepared.feeds["patches"].dtype == np.uint8
    pixels = expected["pixel_values"][0].reshape(3, rows, patch, columns, patch).transpose(1, 3, 0, 2, 4)
    places = prepared.feeds["position_ids"]
    found = np.zeros((rows, columns, 3, patch, patch), np.uint8)
    found[places[:, 0], places[:, 1]] = prepared.feeds["patches"].reshape(-1, 3, patch, patch)
    assert len(np.unique(places, axis=0)) == len(places) == rows * columns
    np.testing.assert_array_equal(found, pixels)
    cells = places.reshape(-1, merge * merge, 2)  # those of one token side by side, tokens row by row
    assert (cells // merge == cells[:, :1] // merge).all()
    order = cells[:, 0, 0] // merge * (columns // merge) + cells[:, 0, 1] // merge
    np.testing.assert_array_equal(order, np.arange(prepared.tokens))
    joint = join(processor, model(processor, patch, merge))
    assert prepared.placeholder == joint.replace_image_token(expected, 0)
    assert prepared.placeholder.count("[IMG]") == prepared.tokens
    values = Normalization.of(source)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (values.mean, values.std))
    normalised = source(images=image, **options)["pixel_values"][0].reshape(3, rows, patch, columns, patch)
    ours = (found.astype(np.float32) * np.float32(values.rescale) - mean) / std
    np.testing.assert_allclose(ours, normalised.transpose(1, 3, 0, 2, 4), rtol=0, atol=1e-5)


def test_odd_images(
    shape: Shape, processor: CheckpointProcessor, process: images.ImageProcessor, odd_image: Image.Image
) -> None:
    check_parity(shape, processor, process, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_any_size(
    shape: Shape,
    processor: CheckpointProcessor,
    process: images.ImageProcessor,
    make_image: Callable[[int, int], Image.Image],
    width: int,
    height: int,
) -> None:
    check_parity(shape, processor, process, make_image(width, height))


@pytest.mark.parametrize("size", [(1700, 900), (1030, 1600), (2100, 350), (1024, 1025), (200, 1540)])
def test_large_images(
    shape: Shape, processor: CheckpointProcessor, process: images.ImageProcessor, make_image: Any, size: tuple[int, int]
) -> None:
    check_parity(shape, processor, process, make_image(*size))


def test_tokens_equal_the_processors(
    shape: Shape, processor: CheckpointProcessor, process: images.ImageProcessor, make_image: Any
) -> None:
    """Two images in one prompt: the same token ids as the joint processor's, text behind each row."""
    whole = translate(processor, model(processor, *shape[:2]))
    pictures = [make_image(90, 50), make_image(20, 80)]
    prompts = PromptEncoder(
        whole.prompt, whole.files["chat_template.jinja"], Tokenizer.from_json(whole.files["tokenizer.json"])
    )
    content = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    messages = [{"role": "user", "content": content}]
    prepared = [process(picture) for picture in pictures]
    encoded = prompts.encode(messages, prepared)
    joint = join(processor, model(processor, *shape[:2]))
    expected = joint(text=prompts.render(messages), images=pictures, return_tensors="np")
    np.testing.assert_array_equal(encoded.token_ids, expected["input_ids"][0])
    assert [sum(span.length for span in encoded.images if span.image == number) for number in range(2)] == [
        image.tokens for image in prepared
    ]
    assert len(encoded.images) == sum(image.grid[0] for image in prepared if image.grid)


def test_without_resize(make_processor: Callable[..., CheckpointProcessor], make_image: Any) -> None:
    shape: Shape = (7, 2, {"do_resize": False})
    parts = made(make_processor, *shape)
    process = images.make_processor(translate(parts, model(parts, 7, 2)).image)
    check_parity(shape, parts, process, make_image(84, 140))
    with pytest.raises(ImageError, match="multiples of 14 pixels, this one is 84 x 139"):
        process(make_image(84, 139))


@pytest.mark.parametrize(
    ("patch", "merge", "options", "error", "words"),
    [
        (14, 2, {}, CheckpointError, "patches of 14 merged by 2, in the model 16 by 2"),
        (16, 1, {}, CheckpointError, "patches of 16 merged by 1, in the model 16 by 2"),
        (16, 2, {"do_center_crop": True, "crop_size": 32}, UnsupportedModel, "do_center_crop"),
        (16, 2, {"size": {"shortest_edge": 32}}, UnsupportedModel, "size"),
        (16, 2, {"size": {"longest_edge": 99_999}}, UnsupportedModel, "within_height must be positive and at most"),
    ],
)
def test_what_cannot_be_translated(
    make_processor: Callable[..., CheckpointProcessor],
    patch: int,
    merge: int,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    parts = made(make_processor, patch, merge, options)
    with pytest.raises(error, match=words):
        translate(parts, model(parts, 16, 2))


def test_another_tower(make_processor: Callable[..., CheckpointProcessor]) -> None:
    parts = made(make_processor, 16, 1, {})
    token = parts.tokenizer.convert_tokens_to_ids("[IMG]")
    other = LlavaConfig(vision_config=CLIPVisionConfig(patch_size=16), image_token_index=token)
    with pytest.raises(CheckpointError, match="PixtralImageProcessor for llava: take preprocessor_config"):
        translate(parts, other)
