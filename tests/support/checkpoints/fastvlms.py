"""FastVLM checkpoints, with the config keys of `KamilaMila/FastVLM-0.5B`. They need timm, and so torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import FastVlmConfig, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.utils import is_timm_available

from tests.support.checkpoints.decoders import HEADS
from tests.support.checkpoints.weights import save
from tests.support.checkpoints.words import tokenizer

TIMM = is_timm_available()
"""Whether `fast_vlm` can make any."""
PATCH = 64
FAST_VLM_SHAPES: dict[str, dict[str, Any]] = {
    "published": {
        "tower": {"layers": [1, 1, 1, 1, 1], "embed_dims": [8, 16, 32, 64, 128]},
        "text": {"num_key_value_heads": 2},
        "side": 192,
        "pad": True,
    },
    "tied": {
        "tower": {"layers": [1, 2, 1, 1, 2], "embed_dims": [8, 16, 16, 32, 96]},
        "text": {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
        "side": 128,
        "pad": False,
    },
    "groups-of-5": {
        "tower": {"layers": [1, 1, 1, 1, 1], "embed_dims": [16, 16, 32, 64, 64]},
        "text": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1},
        "side": 256,
        "pad": False,
    },
    "full-heads": {
        "tower": {"layers": [2, 1, 2, 1, 1], "embed_dims": [8, 16, 32, 32, 32]},
        "text": {"hidden_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "side": 192,
        "pad": True,
    },
}


def _statistics(name: str, values: torch.Tensor) -> None:
    """Running ones of batch normalisation, other than those of a new model."""
    if "running_" in name:
        values += torch.rand(values.shape, generator=torch.Generator().manual_seed(len(name))) / 2


def fast_vlm(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A FastVLM checkpoint; `save_options` as for `save`."""
    s = FAST_VLM_SHAPES[shape]
    words = tokenizer("<image>")
    text = {
        **HEADS,
        "model_type": "qwen2",
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **s["text"],
    }
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "fastvit_mci3",
        "do_pooling": True,
        "global_pool": "avg",
        "hidden_size": 2 * s["tower"]["embed_dims"][-1],
        "initializer_range": 0.02,
        "model_args": {"inference_mode": True, **s["tower"]},
    }
    config = FastVlmConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=text.get("tie_word_embeddings", False),
    )
    save(folder, config, adjust=_statistics, **save_options)
    square = {"size": {"shortest_edge": s["side"]}, "crop_size": {"height": s["side"], "width": s["side"]}}
    plain = {**square, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
    LlavaProcessor(
        image_processor=LlavaImageProcessorPil(**plain, do_pad=True) if s["pad"] else CLIPImageProcessorPil(**plain),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=words.chat_template,
    ).save_pretrained(folder)
    return folder
