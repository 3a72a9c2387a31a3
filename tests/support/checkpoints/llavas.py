"""LLaVA checkpoints: any decoder with any tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    SiglipVisionConfig,
    VipLlavaConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.support.checkpoints.decoders import DECODERS
from tests.support.checkpoints.weights import save
from tests.support.checkpoints.words import tokenizer


def _clip() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    return config, CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), {}


def _clip_two_layers() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config, processor, _ = _clip()
    return config, processor, {"vision_feature_layer": [-3, -2]}


def _siglip() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config = SiglipVisionConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=3, image_size=42, patch_size=14
    )
    processor = SiglipImageProcessorPil(size={"height": 42, "width": 42})
    return config, processor, {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}


TOWERS: dict[str, Callable[[], tuple[PreTrainedConfig, Any, dict[str, Any]]]] = {
    "clip": _clip,
    "clip-two-layers": _clip_two_layers,
    "siglip": _siglip,
}
"""Vision towers with their image processors and what they change in the LLaVA config."""


def llava(folder: Path, decoder: str = "qwen2", tower: str = "clip", **save_options: Any) -> Path:
    """A LLaVA checkpoint: any of `DECODERS` with any of `TOWERS`; `save_options` as for `save`."""
    words = tokenizer("<image>")
    vision, image_processor, changes = TOWERS[tower]()
    text = DECODERS[decoder](vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=bool(text.tie_word_embeddings),
        **changes,
    )
    save(folder, config, **save_options)
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if tower.startswith("clip") else 0,
        chat_template=words.chat_template,
    ).save_pretrained(folder)
    return folder


VIPLLAVA_SHAPES: dict[str, dict[str, Any]] = {
    # five layers of the tower, as published, one of them counted from the first, none of them the last
    "five-layers": {"decoder": "llama-full-heads", "layers": [-2, -3, -4, -5, 1]},
    # heads of 24 in groups of 2, a hidden size that is no multiple of 128
    "heads-of-24": {"decoder": "llama-head-24", "layers": [-2, 0]},
    "tied": {"decoder": "qwen2-tied", "layers": [-1, -2, 1]},
    # a window shorter than the prompt; one layer, and the patch size left to the model's config
    "one-layer": {"decoder": "mistral-window", "layers": -2, "settings": False},
}


def vipllava(folder: Path, shape: str = "five-layers", **save_options: Any) -> Path:
    """A ViP-LLaVA checkpoint, with the file names and config keys of `llava-hf/vip-llava-7b-hf`; `save_options` as for
    `save`."""
    s = VIPLLAVA_SHAPES[shape]
    words = tokenizer("<image>")
    vision, image_processor, _ = _clip()
    vision.num_hidden_layers = 5
    text = DECODERS[s["decoder"]](vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = VipLlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=s["layers"],
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )
    save(folder, config, **save_options)
    if not s.get("settings", True):
        image_processor.save_pretrained(folder)
        words.save_pretrained(folder)
        return folder
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    ).save_pretrained(folder)
    return folder
