"""LLaVA-NeXT and LLaVA-OneVision against transformers' own: pixels and placeholders of the PIL processors, the order of
rows of the models' `pack_image_features`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    PreTrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.errors import CheckpointError, ImageError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

PATCH = 14
WIDTH = 6
Make = Callable[..., CheckpointProcessor]
Picture = Callable[[int, int], Image.Image]


def grid(tile: int, sizes: list[tuple[int, int]]) -> list[list[int]]:
    return [[rows * tile, columns * tile] for rows, columns in sizes]


SIZES = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
SQUARE = [(rows, columns) for rows in range(1, 7) for columns in range(1, 7)]
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": PATCH}
TEXT = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 400}


def llava_next(make: Make, tile: int = 42, sizes: list[tuple[int, int]] = SIZES, **changes: Any) -> Case:
    clip = changes.pop("tower", CLIPVisionConfig) is CLIPVisionConfig
    pinpoints = grid(tile, sizes)
    source = LlavaNextImageProcessorPil(
        size={"shortest_edge": tile}, crop_size={"height": tile, "width": tile}, image_grid_pinpoints=pinpoints
    )
    given_settings = {
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default" if clip else "full",
        "num_additional_image_tokens": int(clip),
    }
    parts = make(source, ["<image>"], "<image>", **{**given_settings, **changes.pop("settings", {})})
    config = LlavaNextConfig(
        vision_config=(CLIPVisionConfig if clip else SiglipVisionConfig)(**VISION, image_size=tile),
        text_config=Qwen2Config(**TEXT),
        image_grid_pinpoints=pinpoints,
        image_token_index=parts.tokenizer.convert_tokens_to_ids("<image>"),
        **{"vision_feature_select_strategy": given_settings["vision_feature_select_strategy"], **changes},
    )
    return Case(parts, config, LlavaNextProcessor, {"vision_feature_select_strategy": "default"}, LlavaNextModel)


def onevision(make: Make, tile: int = 48, most: int = 2, **changes: Any) -> Case:
    pinpoints = grid(tile, SQUARE)
    source = LlavaOnevisionImageProcessorPil(size={"height": tile, "width": tile}, image_grid_pinpoints=pinpoints)
    given_settings = {
        "num_image_tokens": (tile // PATCH) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": f"anyres_max_{most}",
    }
    parts = make(source, ["<image>", "<video>"], "<image>", **{**given_settings, **changes.pop("settings", {})})
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=tile),
        text_config=Qwen2Config(**TEXT),
        image_grid_pinpoints=pinpoints,
        image_token_index=parts.tokenizer.convert_tokens_to_ids("<image>"),
        **{"vision_aspect_ratio": f"anyres_max_{most}", **changes},
    )
    return Case(
        parts, config, LlavaOnevisionProcessor, {"vision_aspect_ratio": config.vision_aspect_ratio}, LlavaOnevisionModel
    )


@dataclass(frozen=True)
class Case:
    """A checkpoint's parts, and transformers' classes for it."""

    parts: CheckpointProcessor
    config: PreTrainedConfig
    processor: Any
    packing: dict[str, Any]
    """What `pack_image_features` is called with."""
    model: Any

    @property
    def process(self) -> images.ImageProcessor:
        return images.make_processor(translate(self.parts, self.config).image)

    def joint(self) -> Any:
        """transformers' joint processor, without the video processor that there is for torchvision alone."""
        check = {"check_argument_for_proper_class": lambda *_: type(None)}
        made = type(self.processor.__name__, (self.processor,), check)
        return made(
            image_processor=self.parts.image_processor,
            tokenizer=self.parts.tokenizer,
            chat_template=self.parts.chat_template,
            **self.parts.settings,
        )

    def packed(self, rows: torch.Tensor, line_end: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """[tokens, width] of [tiles, rows, width], by the model; `size` is height and width."""
        model = object.__new__(self.model)
        torch.nn.Module.__init__(model)
        model.config = self.config
        (made,), _ = model.pack_image_features([rows], torch.tensor([size]), image_newline=line_end, **self.packing)
        return made


CASES: dict[str, Callable[[Make], Case]] = {
    "next": llava_next,
    "next-one-tile": lambda make: llava_next(make, 28, [(1, 1), (2, 1), (1, 4)]),
    "next-siglip": lambda make: llava_next(make, 47, tower=SiglipVisionConfig),
    "onevision": onevision,
    "onevision-most-1": lambda make: onevision(make, 62, 1),
    "onevision-most-9": lambda make: onevision(make, 34, 9),
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, make_processor: Make) -> Case:
    return CASES[request.param](make_processor)


def check_parity(case: Case, image: Image.Image) -> None:
    """Pixels, number of tokens and their rows equal transformers'; what it fails on is refused."""
    source = case.parts.image_processor
    plain = source(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    tiles = plain["pixel_values"][0]
    side = case.config.vision_config.image_size // PATCH
    rows = torch.randn(len(tiles), side**2, WIDTH, generator=torch.Generator().manual_seed(5))
    line_end = torch.full((WIDTH,), 7.0)
    try:
        wanted = case.packed(rows, line_end, (image.height, image.width))
    except RuntimeError:  # interpolated to lines without tokens
        assert max(image.size) > 8 * min(image.size)
        with pytest.raises(ImageError, match="too thin"):
            case.process(image)
        return
    prepared = case.process(image)
    pixels = prepared.feeds["pixels"]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), tiles)
    values = Normalization.of(source)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (values.mean, values.std))
    normalised = (pixels.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(values.rescale) - mean) / std
    expected = source(images=image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(normalised, expected, rtol=0, atol=1e-6)
    assert prepared.placeholder == case.joint().replace_image_token(plain, 0)
    assert prepared.tokens == prepared.placeholder.count("<image>") == len(wanted)
    assert prepared.order is not None
    ended = torch.cat([rows, line_end.expand(len(rows), 1, WIDTH)], dim=1).reshape(-1, WIDTH).numpy()
    if prepared.weights is None:
        np.testing.assert_array_equal(ended[prepared.order], wanted.numpy())
    else:
        np.testing.assert_allclose(prepared.weights.sum(1), 1, atol=1e-6)
        found = np.einsum("tk,tkw->tw", prepared.weights, ended[prepared.order])
        np.testing.assert_allclose(found, wanted.numpy(), atol=3e-5)  # PyTorch's last bit of a place is its compiler's


def test_odd_images(case: Case, odd_image: Image.Image) -> None:
    check_parity(case, images.to_rgb(odd_image))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_any_size(case: Case, make_image: Picture, width: int, height: int) -> None:
    check_parity(case, make_image(width, height))


@pytest.mark.parametrize("size", [(2000, 1000), (777, 2049), (336, 336), (1, 1), (3000, 400), (400, 3000)])
def test_the_real_sizes(make_processor: Make, make_image: Picture, size: tuple[int, int]) -> None:
    """Tiles of 336 pixels, and of 384 with `anyres_max_9`, which interpolates the large ones."""
    for made in (llava_next(make_processor, 336), onevision(make_processor, 384, 9)):
        check_parity(made, make_image(*size))
    assert (made.process(make_image(*size)).weights is not None) == (size in {(2000, 1000), (777, 2049)})


def test_tokens_equal_the_processors(case: Case, make_image: Picture) -> None:
    """Two images in one prompt: the same token ids as the joint processor's."""
    made = translate(case.parts, case.config)
    pictures = [make_image(190, 150), make_image(20, 80)]
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    content = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    messages = [{"role": "user", "content": content}]
    encoded = prompts.encode(messages, [case.process(picture) for picture in pictures])
    expected = case.joint()(text=prompts.render(messages), images=pictures, return_tensors="np")
    np.testing.assert_array_equal(encoded.token_ids, expected["input_ids"][0])


def changed(made: Case, **values: Any) -> Case:
    for name, value in values.items():
        setattr(made.parts.image_processor, name, value)
    return made


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda make: llava_next(make, settings={"patch_size": 7}),
            CheckpointError,
            "counts 36 tokens for a tile, the model makes 9",
        ),
        (
            lambda make: llava_next(make, vision_feature_select_strategy="full"),
            UnsupportedModel,
            "10 features .* 3 x 3",
        ),
        (
            lambda make: llava_next(make, tower=SiglipVisionConfig, vision_feature_select_strategy="default"),
            UnsupportedModel,
            "8 features of the model for 3 x 3",
        ),
        (lambda make: changed(llava_next(make), image_grid_pinpoints=[[42, 42]]), CheckpointError, "not the model's"),
        (lambda make: llava_next(make, sizes=[(1, 0)]), UnsupportedModel, "must be positive"),
        (lambda make: llava_next(make, sizes=[(1.5, 1)]), UnsupportedModel, "multiples of tile"),
        (
            lambda make: changed(llava_next(make), size=SizeDict(shortest_edge=40)),
            CheckpointError,
            "40 x 40 pixels and tiles of 42 x 42 for a vision tower of 42",
        ),
        (
            lambda make: replace(llava_next(make), parts=make(CLIPImageProcessorPil(), ["<image>"], "<image>")),
            CheckpointError,
            "CLIPImageProcessor for llava_next",
        ),
        (lambda make: onevision(make, settings={"num_image_tokens": 8}), CheckpointError, "counts 8 tokens"),
        (lambda make: onevision(make, settings={"num_image_tokens": None}), CheckpointError, "counts 0 tokens"),
        (
            lambda make: onevision(make, vision_aspect_ratio="anyres_max_4"),
            CheckpointError,
            "in the model anyres_max_4",
        ),
        (
            lambda make: onevision(make, vision_aspect_ratio="pad", settings={"vision_aspect_ratio": "pad"}),
            UnsupportedModel,
            "vision_aspect_ratio pad",
        ),
    ],
)
def test_what_cannot_be_translated(
    make_processor: Make, make: Callable[[Make], Case], error: type[Exception], words: str
) -> None:
    made = make(make_processor)
    with pytest.raises(error, match=words) as raised:
        translate(made.parts, made.config)
    assert "\n" not in str(raised.value)


def test_older_checkpoints_count_tokens_by_the_model(make_processor: Make) -> None:
    made = llava_next(make_processor)
    made.parts.settings.clear()
    assert translate(made.parts, made.config).image.options["side"] == 3
