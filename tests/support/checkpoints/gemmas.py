"""Gemma 3 and PaliGemma checkpoints, with the file names and config keys of `google/gemma-3-4b-it` and
`google/paligemma2-3b-mix-224`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3Config, PaliGemmaConfig
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from edgevlm_export import chat_templates
from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

TURNS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
GEMMA3_SHAPES: dict[str, dict[str, Any]] = {
    # a window longer than an image and shorter than the prompt; names of config keys and weights as first published
    "window-24": {
        "heads": 4,
        "kv": 2,
        "dim": 24,
        "hidden": 96,
        "window": 24,
        "image": 84,
        "side": 3,
        "tied": True,
        "published": True,
    },
    # a window shorter than an image: its first tokens are out of sight of its last ones; names as today's transformers
    # writes them
    "window-6": {
        "heads": 3,
        "kv": 1,
        "dim": 40,
        "hidden": 72,
        "window": 6,
        "image": 112,
        "side": 4,
        "tied": False,
        "published": False,
    },
    "no-window": {
        "heads": 2,
        "kv": 2,
        "dim": 16,
        "hidden": 64,
        "window": 600,
        "image": 56,
        "side": 2,
        "tied": True,
        "published": False,
    },
    "groups-of-5": {
        "heads": 5,
        "kv": 1,
        "dim": 56,
        "hidden": 80,
        "window": 16,
        "image": 84,
        "side": 6,
        "tied": False,
        "published": True,
    },
}
PALIGEMMA_SHAPES: dict[str, dict[str, Any]] = {
    "1": {"kind": "gemma", "heads": 4, "kv": 1, "dim": 24, "hidden": 72, "more": {}},
    "2": {
        "kind": "gemma2",
        "heads": 4,
        "kv": 2,
        "dim": 40,
        "hidden": 64,
        "more": {
            "query_pre_attn_scalar": 24,
            "sliding_window": 12,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 0.5,
        },
    },
    "1-untied": {"kind": "gemma", "heads": 3, "kv": 3, "dim": 16, "hidden": 60, "more": {"tie_word_embeddings": False}},
    "2-window-40": {
        "kind": "gemma2",
        "heads": 6,
        "kv": 2,
        "dim": 64,
        "hidden": 96,
        "more": {"query_pre_attn_scalar": 64, "sliding_window": 40, "attn_logit_softcapping": 50.0},
    },
}
"""The second with windows shorter than an image and the prompt, and with both of Gemma 2's caps."""


def gemma3(folder: Path, shape: str = "window-24", **save_options: Any) -> Path:
    """A Gemma 3 checkpoint; `save_options` as for `save`."""
    s = GEMMA3_SHAPES[shape]
    words = tokenizer(TURNS["image_token"], ("<start_of_turn>", "<end_of_turn>", *TURNS.values()), TURNS)
    ids = words.convert_tokens_to_ids
    text = {
        "model_type": "gemma3_text",
        "hidden_size": s["hidden"],
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "head_dim": s["dim"],
        "query_pre_attn_scalar": s["dim"] + 3,
        "max_position_embeddings": 640,
        "sliding_window": s["window"],
        "sliding_window_pattern": 2,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": s["tied"],
    }
    whole = {
        "text_config": text,
        "vision_config": _siglip(s["image"]),
        "mm_tokens_per_image": s["side"] ** 2,
        "image_token_index": ids(TURNS["image_token"]),
        "boi_token_index": ids(TURNS["boi_token"]),
        "eoi_token_index": ids(TURNS["eoi_token"]),
        "eos_token_id": [2, ids("<end_of_turn>")],
        "tie_word_embeddings": s["tied"],
    }
    config = Gemma3Config(**whole)
    save(folder, config, adjust=_vary, save_original_format=s["published"], **save_options)
    if s["published"]:  # the config in the words of its time
        architecture = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
        write_json(folder / "config.json", {**architecture, **whole})
    words.chat_template = chat_templates.named("gemma3")
    words.save_pretrained(folder)
    Gemma3ImageProcessorPil(
        size={"height": s["image"], "width": s["image"]}, image_seq_length=s["side"] ** 2
    ).save_pretrained(folder)
    write_json(
        folder / "processor_config.json", {"processor_class": "Gemma3Processor", "image_seq_length": s["side"] ** 2}
    )
    return folder


def paligemma(folder: Path, shape: str = "1", **save_options: Any) -> Path:
    """A PaliGemma checkpoint, the first or the second; `save_options` as for `save`."""
    s = PALIGEMMA_SHAPES[shape]
    words = tokenizer("<image>")
    words.add_tokens(EXTRA_TOKENS)
    words.chat_template = None
    text = {
        "model_type": s["kind"],
        "hidden_size": s["hidden"],
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "head_dim": s["dim"],
        "max_position_embeddings": 640,
        "num_image_tokens": 9,
        "vocab_size": len(words) + 6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **s["more"],
    }
    config = PaliGemmaConfig(
        text_config=text,
        vision_config={**_siglip(42), "projection_dim": s["hidden"], "num_image_tokens": 9},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=s["hidden"],
        hidden_size=s["hidden"],
        vocab_size=len(words),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=s["more"].get("tie_word_embeddings", True),
    )
    save(folder, config, adjust=_vary, **save_options)
    words.save_pretrained(folder)
    SiglipImageProcessorPil(
        size={"height": 42, "width": 42}, image_seq_length=9, processor_class="PaliGemmaProcessor"
    ).save_pretrained(folder)
    return folder


def _siglip(side: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": side,
        "patch_size": 14,
        "vision_use_head": False,
    }


def _vary(name: str, parameter: torch.Tensor) -> None:
    """Norms behind every layer and of queries and keys leave little to the weights' size: attention is made sharper and
    the last token less loud, so that answers vary."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        parameter.add_(1.0)
    if name.endswith("embed_tokens.weight"):
        parameter.mul_(0.3)
    if name.endswith("language_model.norm.weight"):
        parameter.add_(8.0)  # logits of a size at which a difference of 1e-3 means something, the head tied or not
    if name.endswith("lm_head.weight"):
        parameter.mul_(0.1)
