"""Gemma 4 checkpoints, with the file names and config keys of `google/gemma-4-E2B-it`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Gemma4Config

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% if message['role'] == 'system' or message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '\n\n<|image|>\n\n' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<turn|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)
NAMED = {
    "boi_token": "<|image>",
    "image_token": "<|image|>",
    "eoi_token": "<image|>",
    "boa_token": "<|audio>",
    "audio_token": "<|audio|>",
    "eoa_token": "<audio|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
}
SLIDING, FULL = "sliding_attention", "full_attention"

GEMMA4_SHAPES: dict[str, dict[str, Any]] = {
    # as E2B: one head of keys, shared layers with wide MLPs, per-layer embeddings, a clipped tower, one for audio
    "small": {
        "text": {
            "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL],
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "hidden_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "global_head_dim": 40,
            "sliding_window": 24,
            "hidden_size_per_layer_input": 16,
            "final_logit_softcapping": 30.0,
        },
        "vision": {"head_dim": 16, "use_clipped_linears": True},
        "audio": True,
        "tied": True,
    },
    # as 31B: values that are keys, fewer of them in global layers, images that see themselves in sliding layers, with a
    # window shorter than an image
    "large": {
        "text": {
            "layer_types": [SLIDING, FULL, SLIDING, FULL],
            "hidden_size": 72,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "num_global_key_value_heads": 2,
            "attention_k_eq_v": True,
            "head_dim": 16,
            "global_head_dim": 32,
            "sliding_window": 14,
            "hidden_size_per_layer_input": 0,
            "use_bidirectional_attention": "vision",
            "final_logit_softcapping": 30.0,
        },
        "vision": {"head_dim": 24, "standardize": True},
        "audio": False,
        "tied": False,
    },
    # all at once
    "shared-blocks": {
        "text": {
            "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],
            "num_kv_shared_layers": 2,
            "hidden_size": 80,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "head_dim": 56,
            "global_head_dim": 24,
            "sliding_window": 100,
            "hidden_size_per_layer_input": 24,
            "use_bidirectional_attention": "vision",
        },
        "vision": {"head_dim": 16, "use_clipped_linears": True, "standardize": True},
        "audio": False,
        "tied": True,
    },
    # heads of one size, so a cache like others'; nothing shared
    "even": {
        "text": {
            "layer_types": [SLIDING, FULL, FULL],
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "global_head_dim": 32,
            "sliding_window": 30,
            "hidden_size_per_layer_input": 8,
        },
        "vision": {"head_dim": 32},
        "audio": False,
        "tied": False,
    },
}
PATCH, POOL, TOKENS = 4, 2, 70


def gemma4(folder: Path, shape: str = "small", **save_options: Any) -> Path:
    """A Gemma 4 checkpoint; `save_options` as for `save`."""
    s = GEMMA4_SHAPES[shape]
    words = tokenizer(NAMED["image_token"], (*NAMED.values(), "<|video|>"), NAMED)
    words.chat_template = TEMPLATE
    ids = words.convert_tokens_to_ids
    config = Gemma4Config(
        text_config=_text(s, len(words)),
        vision_config=_vision(s),
        audio_config=_audio() if s["audio"] else None,
        image_token_id=ids(NAMED["image_token"]),
        boi_token_id=ids(NAMED["boi_token"]),
        eoi_token_id=ids(NAMED["eoi_token"]),
        video_token_id=ids("<|video|>"),
        audio_token_id=ids(NAMED["audio_token"]),
        boa_token_id=ids(NAMED["boa_token"]),
        eoa_token_index=ids(NAMED["eoa_token"]),
        eos_token_id=[2, ids(NAMED["eot_token"])],
        tie_word_embeddings=s["tied"],
    )
    save(folder, config, adjust=_vary, **save_options)
    words.save_pretrained(folder)
    images = {
        "image_processor_type": "Gemma4ImageProcessor",
        "do_normalize": False,
        "max_soft_tokens": TOKENS,
        "patch_size": PATCH,
        "pooling_kernel_size": POOL,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "Gemma4Processor",
            "audio_ms_per_token": 40,
            "audio_seq_length": 750,
            "image_seq_length": TOKENS,
            "image_processor": images,
        },
    )
    return folder


def _text(s: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "gemma4_text",
        "num_hidden_layers": len(s["text"]["layer_types"]),
        "intermediate_size": 112,
        "max_position_embeddings": 640,
        "rope_parameters": {
            FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"},
            SLIDING: {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        "vocab_size": vocabulary,
        "vocab_size_per_layer_input": vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": s["tied"],
        **s["text"],
    }


def _vision(s: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "gemma4_vision",
        "hidden_size": 3 * s["vision"]["head_dim"],
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "patch_size": PATCH,
        "pooling_kernel_size": POOL,
        "position_embedding_size": 2 * TOKENS,
        **s["vision"],
    }


def _audio() -> dict[str, Any]:
    return {
        "model_type": "gemma4_audio",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "output_proj_dims": 48,
        "subsampling_conv_channels": [8, 4],
    }


def _vary(name: str, value: torch.Tensor) -> None:
    """Norms behind every layer leave little to the weights' size: the last token is made less loud, so that answers
    vary, and attention, which is not scaled, less sharp. Stored buffers are none that a model is made with."""
    generator = torch.Generator().manual_seed(len(name))
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        value.mul_(0.5)
    if name.endswith("embed_tokens.weight"):
        value.mul_(0.3)
    if name.endswith(("embed_tokens_per_layer.weight", "position_embedding_table")):
        value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    if name.endswith("language_model.norm.weight"):
        value.mul_(8.0)
    if name.endswith("lm_head.weight"):
        value.mul_(0.05)
    if name.endswith("layer_scalar"):
        value.fill_(0.5 + (sum(map(ord, name)) % 7) / 10)
    if name.endswith(("input_max", "output_max")):
        value.fill_(1.5)
    if name.endswith(("input_min", "output_min")):
        value.fill_(-1.25)
    if name.endswith(("std_bias", "std_scale")):
        value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + float(name.endswith("std_scale")))
