"""SmolVLM and Idefics3 processing against transformers' own PIL processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlamaConfig, SmolVLMConfig, SmolVLMVisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

TILE = 32
SPECIAL = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>"]

PROCESSORS: dict[str, Callable[[], Any]] = {
    "smolvlm": lambda: SmolVLMImageProcessorPil(size={"longest_edge": 4 * TILE}, max_image_size={"longest_edge": TILE}),
    "smolvlm-odd": lambda: SmolVLMImageProcessorPil(size={"longest_edge": 101}, max_image_size={"longest_edge": TILE}),
    "one-tile": lambda: SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * TILE}, max_image_size={"longest_edge": TILE}, do_image_splitting=False
    ),
    "no-resize": lambda: SmolVLMImageProcessorPil(do_resize=False, max_image_size={"longest_edge": TILE}),
    "exact": lambda: SmolVLMImageProcessorPil(
        size={"height": 50, "width": 70}, max_image_size={"longest_edge": TILE}, resample=3
    ),
    "idefics3": lambda: Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * TILE}, max_image_size={"longest_edge": TILE}
    ),
}


def config(image_token_id: int) -> SmolVLMConfig:
    return SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=TILE, patch_size=8
        ),
        text_config=LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=400),
        image_token_id=image_token_id,
        scale_factor=2,
    )


@pytest.fixture(scope="module", params=PROCESSORS, ids=str)
def processor(
    request: pytest.FixtureRequest, make_processor: Callable[..., CheckpointProcessor]
) -> CheckpointProcessor:
    return make_processor(PROCESSORS[request.param](), SPECIAL, "<image>", image_seq_len=4)


@pytest.fixture(scope="module")
def process(processor: CheckpointProcessor) -> images.ImageProcessor:
    token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    return images.make_processor(translate(processor, config(token_id)).image)


def reference_processor(parts: CheckpointProcessor) -> Any:
    """SmolVLMProcessor without its video processor, which needs torchvision; it expands image tokens just the same."""
    reference = object.__new__(SmolVLMProcessor)
    reference.image_processor, reference.tokenizer = parts.image_processor, parts.tokenizer
    reference.image_token, reference.image_seq_len = "<image>", parts.settings["image_seq_len"]
    reference.fake_image_token, reference.global_image_token = "<fake_token_around_image>", "<global-img>"
    return reference


def check_parity(parts: CheckpointProcessor, process: images.ImageProcessor, image: Image.Image) -> None:
    """Tiles and placeholder equal transformers'; what it refuses is refused."""
    source = parts.image_processor
    flags = {"do_rescale": False, "do_normalize": False, "return_row_col_info": True, "return_tensors": "np"}
    try:
        expected = source(images=image, **flags)
    except ValueError:
        assert max(image.size) > 40 * min(image.size)
        with pytest.raises(ImageError):
            process(image)
        return
    prepared = process(image)
    pixels = prepared.feeds["pixels"]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), expected["pixel_values"][0])
    assert expected["pixel_attention_mask"].all(), "no tile is padded"
    values = Normalization.of(source)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (values.mean, values.std))
    normalised = (pixels.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(values.rescale) - mean) / std
    np.testing.assert_allclose(
        normalised, source(images=image, return_tensors="np")["pixel_values"][0], rtol=0, atol=1e-6
    )
    assert prepared.placeholder == reference_processor(parts).replace_image_token(expected, 0)
    assert prepared.tokens == prepared.placeholder.count("<image>") == 4 * len(pixels)


def test_odd_images(processor: CheckpointProcessor, process: images.ImageProcessor, odd_image: Image.Image) -> None:
    check_parity(processor, process, odd_image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_any_size(
    processor: CheckpointProcessor,
    process: images.ImageProcessor,
    make_image: Callable[[int, int], Image.Image],
    width: int,
    height: int,
) -> None:
    check_parity(processor, process, make_image(width, height))


@pytest.mark.parametrize("size", [(2000, 1000), (777, 2049), (512, 512), (1, 1)])
def test_the_real_sizes(
    make_processor: Callable[..., CheckpointProcessor],
    make_image: Callable[[int, int], Image.Image],
    size: tuple[int, int],
) -> None:
    source = SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    parts = make_processor(source, SPECIAL, "<image>", image_seq_len=64)
    real = config(parts.tokenizer.convert_tokens_to_ids("<image>"))
    real.vision_config.image_size, real.vision_config.patch_size, real.scale_factor = 512, 16, 4
    prepared = images.make_processor(translate(parts, real).image)(make_image(*size))
    flags = {"do_rescale": False, "do_normalize": False, "return_row_col_info": True, "return_tensors": "np"}
    expected = source(images=make_image(*size), **flags)
    np.testing.assert_array_equal(prepared.feeds["pixels"].transpose(0, 3, 1, 2), expected["pixel_values"][0])
    assert prepared.placeholder == reference_processor(parts).replace_image_token(expected, 0)


def test_tokens_equal_the_processors(
    make_processor: Callable[..., CheckpointProcessor], make_image: Callable[[int, int], Image.Image]
) -> None:
    """Two images in one prompt: the same token ids, and spans that are the image tokens, tile by tile."""
    parts = make_processor(PROCESSORS["smolvlm"](), SPECIAL, "<image>", image_seq_len=4)
    made = translate(parts, config(parts.tokenizer.convert_tokens_to_ids("<image>")))
    pictures = [make_image(90, 50), make_image(20, 80)]
    prepared = [images.make_processor(made.image)(picture) for picture in pictures]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    content = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    messages = [{"role": "user", "content": content}]
    encoded = prompts.encode(messages, prepared)
    reference = reference_processor(parts)
    batch = reference.image_processor(images=[pictures], return_row_col_info=True, return_tensors="np")
    texts, _ = reference.get_text_with_replacements(
        [prompts.render(messages)], [reference.replace_image_token(batch, index) for index in range(2)]
    )
    expected = np.array(parts.tokenizer(texts)["input_ids"][0])
    np.testing.assert_array_equal(encoded.token_ids, expected)
    tiles = [image.feeds["pixels"].shape[0] for image in prepared]
    assert [(span.image, span.row, span.length) for span in encoded.images] == [
        (image, 4 * tile, 4) for image in range(2) for tile in range(tiles[image])
    ]
    rows = np.concatenate([np.arange(span.start, span.stop) for span in encoded.images])
    np.testing.assert_array_equal(rows, np.flatnonzero(expected == made.prompt.image_token_id))


def test_what_cannot_be_translated(make_processor: Callable[..., CheckpointProcessor]) -> None:
    wrong = make_processor(PROCESSORS["smolvlm"](), SPECIAL, "<image>", image_seq_len=9)
    token_id = wrong.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(CheckpointError, match=r"image_seq_len is 9 .* the model makes 4 of a tile"):
        translate(wrong, config(token_id))
    short = SmolVLMImageProcessorPil(size={"shortest_edge": 40}, max_image_size={"longest_edge": TILE})
    with pytest.raises(UnsupportedModel, match="shortest_edge"):
        translate(make_processor(short, SPECIAL, "<image>", image_seq_len=4), config(token_id))
