"""What a text model's configuration says of its decoder graph: which layers have keys and values, how many and how
wide, where rotation happens, how long a sequence may be; and which text models there are graphs for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_runtime.errors import ExportError, UnsupportedModel

DECODERS = frozenset(
    {
        "llama",
        "mistral",
        "ministral3",
        "qwen2",
        "qwen3",
        "phi3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "qwen2_vl_text",
        "qwen2_5_vl_text",
        "qwen3_vl_text",
        "lfm2",
        "qwen3_5_text",
        "paddleocr_vl_text",
    }
)
"""`model_type`s of text models whose layers the decoder graph's operators reproduce, each proven by a test."""

HEAD_MULTIPLE = 16
"""Head sizes that ONNX Runtime's GroupQueryAttention rotates on a processor are multiples of this."""

DEFAULT_MAX_CONTEXT = 32768
"""Rotary tables are part of the bundle: longer contexts only when asked for."""

SEQUENCE_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary scalings that change with the sequence's length; a table holds them up to the original context."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """The KV cache of one decoder."""

    sizes: tuple[tuple[int, int], ...]
    """Heads of keys and values, and their size, of each layer that has its own."""

    @property
    def layers(self) -> int:
        """How many layers have keys and values of their own."""
        return len(self.sizes)

    @property
    def kv_heads(self) -> int:
        """Most heads of any layer."""
        return max(heads for heads, _ in self.sizes)

    @property
    def head_dim(self) -> int:
        """Largest head size of any layer."""
        return max(dim for _, dim in self.sizes)

    @property
    def differing(self) -> tuple[tuple[int, int], ...]:
        """`sizes` where they are not all the same, else none."""
        return self.sizes if len(set(self.sizes)) > 1 else ()


def kv_shape(config: PreTrainedConfig) -> KVShape:
    """Read the cache's shape off a text config."""
    return KVShape(tuple(_kv_size(config.per_layer_config[layer]) for layer in attention_layers(config)))


def _kv_size(config: PreTrainedConfig) -> tuple[int, int]:
    """Of one layer, whose config this is."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads, head_dim


ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Types of layers that have keys and values, as `layer_types` of a config says."""


def attention_layers(config: PreTrainedConfig) -> tuple[int, ...]:
    """Layers that have keys and values of their own."""
    layers = [layer for layer in range(config.num_hidden_layers) if layer not in shared_layers(config)]
    kinds = getattr(config, "layer_types", None)
    return tuple(layers) if kinds is None else tuple(layer for layer in layers if kinds[layer] in ATTENTION)


def shared_layers(config: PreTrainedConfig) -> dict[int, int]:
    """Layers that read the keys and values of an earlier one, each with that one: the last of its type that has its own
    (Gemma 4)."""
    shared = int(getattr(config, "num_kv_shared_layers", None) or 0)
    kinds, first = getattr(config, "layer_types", None) or (), config.num_hidden_layers - shared
    own = {kind: layer for layer, kind in enumerate(kinds[:first])}
    return {layer: own[kinds[layer]] for layer in range(first, config.num_hidden_layers)} if shared else {}


def check_decoder(config: PreTrainedConfig) -> None:
    """Refuse a text model that the graph would get wrong. Raises `UnsupportedModel`."""
    if config.model_type not in DECODERS:
        raise UnsupportedModel(
            f"text decoder not supported: {config.model_type}: supported are {', '.join(sorted(DECODERS))}"
        )


def rotates_outside(config: PreTrainedConfig) -> bool:
    """Whether the graph's own operators rotate queries and keys, by the checkpoint's rotary module: where the attention
    operator cannot, or where its one table for all layers and whole heads is not what the model has."""
    rope = getattr(config, "rope_parameters", None) or {}
    tables = [value for value in rope.values() if isinstance(value, dict)]  # one for each type of layer
    partial = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)) or 1.0
    by_position = rope.get("llama_4_scaling_beta") is not None  # queries grow with their position
    return bool(tables) or by_position or partial != 1.0 or kv_shape(config).head_dim % HEAD_MULTIPLE != 0


def windows(config: PreTrainedConfig) -> tuple[int, ...]:
    """The sliding windows of the decoder's layers, widest first; 0 is none."""
    window = int(getattr(config, "sliding_window", None) or 0)
    kinds = set(getattr(config, "layer_types", None) or (["sliding_attention"] if window else ["full_attention"]))
    found = {window if "sliding" in kind else 0 for kind in kinds}
    return tuple(sorted(found, key=lambda size: (size > 0, -size)))


def rotary_limit(config: PreTrainedConfig) -> str | None:
    """The rotary scaling that bounds the context, as one table holds it only up to the original length; else None."""
    return next((table["rope_type"] for table in _sequence_dependent(config)), None)


def longest(config: PreTrainedConfig) -> int:
    """Tokens that an exported decoder of this checkpoint can hold."""
    limit = int(config.max_position_embeddings)
    originals = (table.get("original_max_position_embeddings", limit) for table in _sequence_dependent(config))
    return min(limit, *map(int, originals), limit)


def _sequence_dependent(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Rotary settings, of all layers or of a type of layer, whose frequencies change with the sequence's length."""
    rope = getattr(config, "rope_parameters", None) or {}
    tables = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return [table for table in tables if table.get("rope_type") in SEQUENCE_DEPENDENT_ROPE]


def max_context(config: PreTrainedConfig, wanted: int | None, default: int = DEFAULT_MAX_CONTEXT) -> int:
    """Tokens the exported decoder can hold. Raises `ExportError` for more than the checkpoint allows."""
    limit = longest(config)
    if wanted is not None and wanted > limit:
        raise ExportError(f"context too long: {wanted} tokens: this checkpoint allows {limit}")
    return min(limit, wanted or default)
