"""Text decoders: biases and none, q/k norms, tied and untied heads, grouped and full heads, head sizes 16 to 128."""

from __future__ import annotations

from collections.abc import Callable

from transformers import (
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

TEXT = {"hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "max_position_embeddings": 640}
HEADS = {**TEXT, "num_attention_heads": 4}

DECODERS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama-full-heads": lambda **kw: LlamaConfig(**HEADS, num_key_value_heads=4, **kw),
    "llama-head-80": lambda **kw: LlamaConfig(
        **{**HEADS, "hidden_size": 160, "num_attention_heads": 2}, num_key_value_heads=1, **kw
    ),
    "llama3-rope": lambda **kw: LlamaConfig(
        **HEADS,
        num_key_value_heads=2,
        attention_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        **kw,
    ),
    "mistral-window": lambda **kw: MistralConfig(**HEADS, num_key_value_heads=2, sliding_window=24, **kw),
    "mistral-head-128": lambda **kw: MistralConfig(
        **HEADS, num_key_value_heads=2, head_dim=128, sliding_window=None, **kw
    ),
    "qwen2": lambda **kw: Qwen2Config(**HEADS, num_key_value_heads=2, **kw),
    "qwen2-tied": lambda **kw: Qwen2Config(**HEADS, num_key_value_heads=1, tie_word_embeddings=True, **kw),
    "qwen3": lambda **kw: Qwen3Config(**HEADS, num_key_value_heads=2, head_dim=64, **kw),
    "phi3": lambda **kw: Phi3Config(
        **{**HEADS, "hidden_size": 192, "num_attention_heads": 2}, num_key_value_heads=2, **kw
    ),
    "llama-head-24": lambda **kw: LlamaConfig(**{**HEADS, "hidden_size": 96}, num_key_value_heads=2, **kw),
    "phi3-partial-rotary": lambda **kw: Phi3Config(
        **HEADS,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        **kw,
    ),
    "phi3-longrope": lambda **kw: Phi3Config(
        **HEADS,
        num_key_value_heads=2,
        original_max_position_embeddings=320,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3, 1.2, 1.5, 1.0, 1.4, 1.2],
            "long_factor": [2.0, 3.0, 7.0, 5.0, 4.0, 9.0, 8.0, 6.0],
        },
        **kw,
    ),
    "gemma2-caps-and-windows": lambda **kw: Gemma2Config(
        **HEADS,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=24,
        sliding_window=24,
        attn_logit_softcapping=3.0,
        **kw,
    ),
    "gemma": lambda **kw: GemmaConfig(**HEADS, num_key_value_heads=1, head_dim=32, **kw),
}
