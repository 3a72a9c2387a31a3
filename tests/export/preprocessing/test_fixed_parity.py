"""CLIP, SigLIP and LLaVA processing against transformers' own PIL processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPVisionConfig, LlavaConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

TOWERS: dict[str, Callable[..., PreTrainedConfig]] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}
SIZE = 56


def config(tower: str, image_token_id: int, strategy: str = "default") -> LlavaConfig:
    vision = TOWERS[tower](hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE, patch_size=14)
    return LlavaConfig(
        vision_config=vision,
        text_config=Qwen2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=400),
        image_token_id=image_token_id,
        vision_feature_select_strategy=strategy,
    )


CROP = {"height": SIZE, "width": SIZE}
PROCESSORS: dict[str, Callable[[], Any]] = {
    "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=CROP),
    "clip-bilinear": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=CROP, resample=2),
    "clip-crop-pads": lambda: CLIPImageProcessorPil(size={"shortest_edge": 37}, crop_size=CROP),
    "clip-crop-cuts": lambda: CLIPImageProcessorPil(size={"shortest_edge": 71}, crop_size=CROP),
    "clip-bounded": lambda: CLIPImageProcessorPil(size={"shortest_edge": 57, "longest_edge": 90}, crop_size=CROP),
    "clip-exact": lambda: CLIPImageProcessorPil(size={"height": 63, "width": 58}, crop_size=CROP),
    "clip-crop-only": lambda: CLIPImageProcessorPil(do_resize=False, crop_size=CROP),
    "siglip": lambda: SiglipImageProcessorPil(size=CROP),
    "llava": lambda: LlavaImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=CROP),
    "llava-pad": lambda: LlavaImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=CROP, do_pad=True),
}


def check_parity(image_processor: Any, process: images.ImageProcessor, image: Image.Image) -> None:
    """Pixels equal transformers', before normalisation exactly and after it to 1e-6; what it refuses is refused."""
    try:
        whole = image_processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    except ValueError:
        assert max(image.size) > 50 * min(image.size)
        with pytest.raises(ImageError):
            process(image)
        return
    expected = whole["pixel_values"]
    pixels = process(image).feeds["pixels"]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), expected)
    values = Normalization.of(image_processor)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (values.mean, values.std))
    normalised = (pixels.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(values.rescale) - mean) / std
    expected = image_processor(images=image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(normalised, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module", params=PROCESSORS, ids=str)
def processor(
    request: pytest.FixtureRequest, make_processor: Callable[..., CheckpointProcessor]
) -> CheckpointProcessor:
    return make_processor(
        PROCESSORS[request.param](), ["<image>"], "<image>", patch_size=14, num_additional_image_tokens=1
    )


@pytest.fixture(scope="module")
def process(processor: CheckpointProcessor) -> images.ImageProcessor:
    token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    return images.make_processor(translate(processor, config("clip", token_id)).image)


def test_pixels_of_odd_images(
    processor: CheckpointProcessor, process: images.ImageProcessor, odd_image: Image.Image
) -> None:
    check_parity(processor.image_processor, process, odd_image)


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_pixels_of_any_size(
    processor: CheckpointProcessor,
    process: images.ImageProcessor,
    make_image: Callable[[int, int], Image.Image],
    width: int,
    height: int,
) -> None:
    check_parity(processor.image_processor, process, make_image(width, height))


@pytest.mark.parametrize(
    ("tower", "strategy", "extra", "tokens"),
    [("clip", "default", 1, 16), ("clip", "full", 1, 17), ("siglip", "full", 0, 16)],
)
def test_tokens_equal_the_processors(
    make_processor: Callable[..., CheckpointProcessor],
    odd_image: Image.Image,
    tower: str,
    strategy: str,
    extra: int,
    tokens: int,
) -> None:
    parts = make_processor(
        PROCESSORS["clip"](),
        ["<image>"],
        "<image>",
        patch_size=14,
        num_additional_image_tokens=extra,
        vision_feature_select_strategy=strategy,
    )
    reference = LlavaProcessor(
        parts.image_processor, parts.tokenizer, chat_template=parts.chat_template, **parts.settings
    )
    made = translate(parts, config(tower, reference.image_token_id, strategy))
    prepared = images.make_processor(made.image)(odd_image)
    assert prepared.tokens == tokens
    content = [{"type": "text", "text": "what? "}, {"type": "image"}, {"type": "text", "text": " the part"}]
    messages = [{"role": "user", "content": content}]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    encoded = prompts.encode(messages, [prepared])
    text = reference.apply_chat_template(messages, add_generation_prompt=True)
    expected = reference(text=text, images=odd_image, return_tensors="np")["input_ids"][0]
    np.testing.assert_array_equal(encoded.token_ids, expected)
    (span,) = encoded.images
    assert span.length == tokens
    assert np.flatnonzero(expected == reference.image_token_id)[0] == span.start


def test_old_checkpoints_count_tokens_by_the_model(make_processor: Callable[..., CheckpointProcessor]) -> None:
    parts = make_processor(PROCESSORS["clip"](), ["<image>"], "<image>")
    token_id = parts.tokenizer.convert_tokens_to_ids("<image>")
    assert translate(parts, config("clip", token_id)).image.options["tokens"] == 16
    assert translate(parts, config("siglip", token_id, "full")).image.options["tokens"] == 16


@pytest.mark.parametrize(
    ("image_processor", "error", "words"),
    [
        (
            lambda: CLIPImageProcessorPil(size={"shortest_edge": SIZE}, do_center_crop=False),
            UnsupportedModel,
            "centre crop",
        ),
        (lambda: CLIPImageProcessorPil(size={"max_height": 9, "max_width": 9}), UnsupportedModel, "max_height"),
        (lambda: CLIPImageProcessorPil(size=CROP, crop_size=CROP, do_pad=True), UnsupportedModel, "do_pad"),
        (lambda: SiglipImageProcessorPil(size={"height": 28, "width": 28}), CheckpointError, "28 x 28 pixels"),
    ],
)
def test_what_cannot_be_translated(
    make_processor: Callable[..., CheckpointProcessor], image_processor: Any, error: type[Exception], words: str
) -> None:
    parts = make_processor(image_processor(), ["<image>"], "<image>")
    token_id = parts.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(error, match=words) as raised:
        translate(parts, config("clip", token_id))
    assert "\n" not in str(raised.value)


def test_a_count_that_is_not_the_models(make_processor: Callable[..., CheckpointProcessor]) -> None:
    parts = make_processor(PROCESSORS["clip"](), ["<image>"], "<image>", patch_size=14, num_additional_image_tokens=0)
    token_id = parts.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(CheckpointError, match="counts 15 tokens for an image, the model makes 16"):
        translate(parts, config("clip", token_id))
