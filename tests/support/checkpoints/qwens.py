"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5 checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3_5Config, Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.support.checkpoints.decoders import HEADS
from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

QWEN_SHAPES: dict[str, dict[str, Any]] = {
    "window-4": {"patch": 14, "window": 112, "depth": 3, "full": [1], "heads": 2, "width": 32, "sections": [2, 3, 3]},
    "window-3": {"patch": 10, "window": 60, "depth": 2, "full": [1], "heads": 3, "width": 72, "sections": [4, 2, 2]},
}


def qwen2_5_vl(folder: Path, shape: str = "window-4", **save_options: Any) -> Path:
    """A Qwen2.5-VL checkpoint; `save_options` as for `save`."""
    s = QWEN_SHAPES[shape]
    words = tokenizer("<|image_pad|>")
    text = {
        **HEADS,
        "model_type": "qwen2_5_vl_text",
        "num_key_value_heads": 2,
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": s["sections"]},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "depth": s["depth"],
        "hidden_size": s["width"],
        "intermediate_size": 56,
        "num_heads": s["heads"],
        "patch_size": s["patch"],
        "spatial_merge_size": 2,
        "window_size": s["window"],
        "fullatt_block_indexes": s["full"],
        "out_hidden_size": 64,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_tokens(words))
    save(folder, config, **save_options)
    _processor(folder, words, s["patch"], "Qwen2_5_VLProcessor")
    return folder


QWEN2_VL_SHAPES: dict[str, dict[str, Any]] = {
    "tied": {"patch": 14, "depth": 2, "heads": 2, "width": 32, "sections": [2, 3, 3], "tied": True, "old": False},
    "flat-config": {
        "patch": 10,
        "depth": 3,
        "heads": 3,
        "width": 72,
        "sections": [4, 2, 2],
        "tied": False,
        "old": True,
    },
}
"""`old`: config.json as the hub has it, written by transformers 4.4x: no text_config, figures of the text model beside
`vision_config`, whose model_type is the whole's."""


def qwen2_vl(folder: Path, shape: str = "tied", **save_options: Any) -> Path:
    """A Qwen2-VL checkpoint; `save_options` as for `save`."""
    s = QWEN2_VL_SHAPES[shape]
    words = tokenizer("<|image_pad|>")
    text = {
        **HEADS,
        "num_key_value_heads": 1 if s["tied"] else 2,
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "depth": s["depth"],
        "embed_dim": s["width"],
        "hidden_size": 64,
        "mlp_ratio": 2,
        "num_heads": s["heads"],
        "patch_size": s["patch"],
        "spatial_merge_size": 2,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": s["sections"]}
    config = Qwen2VLConfig(
        text_config={**text, "model_type": "qwen2_vl_text", "rope_parameters": rope},
        vision_config={**vision, "model_type": "qwen2_vl_vision"},
        tie_word_embeddings=s["tied"],
        **_tokens(words),
    )
    save(folder, config, **save_options)
    if s["old"]:
        _as_published(folder, text, vision, s, words)
    _processor(folder, words, s["patch"], "Qwen2VLProcessor")
    return folder


QWEN3_VL_SHAPES: dict[str, dict[str, Any]] = {
    "tied": {
        "text": {**HEADS, "num_key_value_heads": 1, "head_dim": 16},
        "vision": {"patch_size": 16, "depth": 3, "num_heads": 2, "hidden_size": 32, "deepstack_visual_indexes": [0, 2]},
        "side": 6,
        "sections": [4, 2, 2],
        "tied": True,
    },
    "wide-heads": {
        "text": {**HEADS, "hidden_size": 96, "num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 32},
        "vision": {"patch_size": 10, "depth": 2, "num_heads": 3, "hidden_size": 72, "deepstack_visual_indexes": [0]},
        "side": 5,
        "sections": [6, 5, 5],
        "tied": False,
    },
}


def qwen3_vl(folder: Path, shape: str = "tied", **save_options: Any) -> Path:
    """A Qwen3-VL checkpoint, its config.json as the hub has it; `save_options` as for `save`."""
    s = QWEN3_VL_SHAPES[shape]
    words = tokenizer("<|image_pad|>")
    text = {
        **s["text"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "vocab_size": len(words),
        "model_type": "qwen3_vl_text",
        "rope_theta": 10000.0,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": s["sections"], "rope_type": "default"},
    }
    vision = {
        **s["vision"],
        "intermediate_size": 56,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": s["side"] ** 2,
        "out_hidden_size": s["text"]["hidden_size"],
        "model_type": "qwen3_vl",
    }
    published = {"text_config": text, "vision_config": vision, "tie_word_embeddings": s["tied"], **_tokens(words)}
    save(folder, Qwen3VLConfig(**copy.deepcopy(published)), **save_options)
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": "qwen3_vl",
            "transformers_version": "4.57.0.dev0",
            **published,
        },
    )
    _processor(folder, words, vision["patch_size"], "Qwen3VLProcessor")
    return folder


QWEN3_5_SHAPES: dict[str, dict[str, Any]] = {
    # linear layers first, two heads of values for each of keys; a quarter of each head is rotated, as published
    "published": {
        "layers": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        "text": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
        "linear": {
            "num_key_heads": 2,
            "num_value_heads": 4,
            "key_head_dim": 16,
            "value_head_dim": 16,
            "conv_kernel_dim": 4,
        },
        "vision": {"patch_size": 16, "depth": 3, "num_heads": 2, "hidden_size": 32},
        "side": 6,
        "sections": [2, 1, 1],
        "rotated": 0.25,
        "tied": True,
    },
    # groups of three, heads of 40 half rotated, keys narrower than values, a linear layer last, another activation
    "heads-of-40": {
        "layers": ["full_attention", "linear_attention", "linear_attention"],
        "text": {
            "hidden_size": 72,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 40,
            "hidden_act": "gelu_pytorch_tanh",
        },
        "linear": {
            "num_key_heads": 1,
            "num_value_heads": 3,
            "key_head_dim": 12,
            "value_head_dim": 20,
            "conv_kernel_dim": 3,
        },
        "vision": {"patch_size": 10, "depth": 2, "num_heads": 3, "hidden_size": 72},
        "side": 5,
        "sections": [4, 3, 3],
        "rotated": 0.5,
        "tied": False,
    },
    # as many heads of keys as of values, keys wider; a kernel of two; whole heads rotated
    "wide-keys": {
        "layers": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
        "text": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 16},
        "linear": {
            "num_key_heads": 3,
            "num_value_heads": 3,
            "key_head_dim": 24,
            "value_head_dim": 8,
            "conv_kernel_dim": 2,
        },
        "vision": {"patch_size": 14, "depth": 2, "num_heads": 2, "hidden_size": 32},
        "side": 4,
        "sections": [4, 2, 2],
        "rotated": 1.0,
        "tied": False,
    },
    "six-heads": {
        "layers": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
        "text": {"hidden_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64},
        "linear": {
            "num_key_heads": 2,
            "num_value_heads": 6,
            "key_head_dim": 24,
            "value_head_dim": 16,
            "conv_kernel_dim": 4,
        },
        "vision": {"patch_size": 16, "depth": 2, "num_heads": 2, "hidden_size": 48},
        "side": 8,
        "sections": [3, 3, 2],
        "rotated": 0.25,
        "tied": True,
    },
}


def qwen3_5(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A Qwen3.5 checkpoint, its config.json as the hub has it, with the layer that predicts further tokens, which
    transformers does not load; `save_options` as for `save`."""
    s = QWEN3_5_SHAPES[shape]
    words = tokenizer("<|image_pad|>", ("<|endoftext|>",))
    text = {
        "hidden_act": "silu",
        **s["text"],
        **{f"linear_{name}": value for name, value in s["linear"].items()},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "dtype": "float32",
        "eos_token_id": 2,
        "full_attention_interval": 4,
        "intermediate_size": 112,
        "layer_types": s["layers"],
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 1024,
        "mlp_only_layers": [],
        "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "num_hidden_layers": len(s["layers"]),
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": s["sections"],
            "partial_rotary_factor": s["rotated"],
            "rope_theta": 10000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": s["tied"],
        "vocab_size": len(words),
    }
    vision = {
        **s["vision"],
        "deepstack_visual_indexes": [],
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "intermediate_size": 56,
        "model_type": "qwen3_5",
        "num_position_embeddings": s["side"] ** 2,
        "out_hidden_size": s["text"]["hidden_size"],
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    published = {"text_config": text, "vision_config": vision, "tie_word_embeddings": s["tied"], **_tokens(words)}
    save(
        folder,
        Qwen3_5Config(**copy.deepcopy(published)),
        adjust=_as_trained(s["linear"], published["image_token_id"]),
        **save_options,
    )
    _with_further_tokens(folder, s["text"]["hidden_size"])
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3_5ForConditionalGeneration"],
            "model_type": "qwen3_5",
            "transformers_version": "4.57.0.dev0",
            **published,
        },
    )
    _processor(folder, words, vision["patch_size"], "Qwen3VLProcessor")
    return folder


def _as_trained(linear: dict[str, int], image: int) -> Callable[[str, torch.Tensor], None]:
    """Linear attention as training leaves it: matrices fade over many positions (as drawn, nearly all is gone at the
    next one), and a key is near the query of its position, so that what is read is more than noise. No answer has the
    token `image`, which transformers would take for a picture's."""
    width = linear["num_key_heads"] * linear["key_head_dim"]

    def adjust(name: str, parameter: torch.Tensor) -> None:
        if name.endswith("A_log"):
            parameter.sub_(4)
        if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
            parameter[width : 2 * width].mul_(0.5).add_(parameter[:width], alpha=0.8)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            parameter[image] = 0

    return adjust


def _with_further_tokens(folder: Path, hidden: int) -> None:
    """Weights of the layer for multi-token prediction beside the model's own."""
    file = folder / "model.safetensors"
    more = {"mtp.fc.weight": torch.zeros(hidden, 2 * hidden), "mtp.norm.weight": torch.ones(hidden)}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})


def _as_published(folder: Path, text: dict[str, Any], vision: dict[str, Any], s: dict[str, Any], words: Any) -> None:
    old = {
        **text,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **_tokens(words),
        "hidden_act": "silu",
        "max_window_layers": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"type": "mrope", "mrope_section": s["sections"]},
        "rope_theta": 10000.0,
        "sliding_window": 32,
        "tie_word_embeddings": s["tied"],
        "torch_dtype": "float32",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            **{name: value for name, value in vision.items() if name != "patch_size"},
            "in_chans": 3,
            "model_type": "qwen2_vl",
            "patch_size": s["patch"],
            "spatial_patch_size": s["patch"],
            "temporal_patch_size": 2,
        },
    }
    write_json(folder / "config.json", old)


def _tokens(words: Any) -> dict[str, int]:
    names = {"image": "<|image_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    return {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in names.items()}


def _processor(folder: Path, words: Any, patch: int, processor_class: str) -> None:
    words.chat_template = words.chat_template.replace("<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>")
    words.save_pretrained(folder)
    factor = 2 * patch
    Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * factor**2, "longest_edge": 40 * factor**2}
    ).save_pretrained(folder)
    write_json(folder / "processor_config.json", {"processor_class": processor_class})
