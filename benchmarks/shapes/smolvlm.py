"""SmolVLM, for images of one tile and for those that it cuts into many."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, SmolVLMConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from benchmarks.shapes.base import Shape, tokenizer

SMOLVLM_IMAGE_TOKEN = 49190
SMOLVLM_TOKENS = 64
"""Of one tile."""


def _smolvlm_256m() -> Any:
    text = LlamaConfig(
        vocab_size=49280,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
    )
    vision = {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    config = SmolVLMConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        scale_factor=4,
        image_token_id=SMOLVLM_IMAGE_TOKEN,
        dtype="bfloat16",
    )
    config.architectures = ["SmolVLMForConditionalGeneration"]
    return config


def _save_smolvlm_processor(folder: Path, longest_edge: int = 512) -> None:
    """Unless told otherwise for images of one tile: the processor does not enlarge them to sixteen."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer(SMOLVLM_IMAGE_TOKEN, ["<fake_token_around_image>", "<global-img>", *places]).save_pretrained(folder)
    sizes = {"size": {"longest_edge": longest_edge}, "max_image_size": {"longest_edge": 512}}
    SmolVLMImageProcessorPil(**sizes).save_pretrained(folder)
    made = {"processor_class": "SmolVLMProcessor", "image_seq_len": SMOLVLM_TOKENS}
    (folder / "processor_config.json").write_text(json.dumps(made), encoding="utf-8")


SMOLVLM: dict[str, Shape] = {
    "smolvlm-256m": Shape(_smolvlm_256m, _save_smolvlm_processor),
    "smolvlm-256m-tiles": Shape(_smolvlm_256m, partial(_save_smolvlm_processor, longest_edge=2048)),
}
