"""The decoder graph, shared by every family: token and image embeddings in, logits and an updated KV cache out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_runtime.errors import ExportError, UnsupportedModel

DECODERS = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "qwen2_5_vl_text"})
"""`model_type`s of text models whose attention this module's operator reproduces, each held to by a test."""

HEAD_MULTIPLE = 16
"""Head sizes that ONNX Runtime's GroupQueryAttention rotates on a processor are multiples of this."""

DEFAULT_MAX_CONTEXT = 32768
"""Rotary tables are part of the bundle: longer contexts only when asked for."""

SEQUENCE_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary scalings that change with the sequence's length; a table holds them up to the original context."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """The KV cache of one decoder."""

    layers: int
    kv_heads: int
    head_dim: int


def kv_shape(config: PreTrainedConfig) -> KVShape:
    """Read the cache's shape off a text config."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return KVShape(config.num_hidden_layers, kv_heads, head_dim)


def check_decoder(config: PreTrainedConfig) -> None:
    """Refuse a text model that the graph would get wrong. Raises `UnsupportedModel`."""
    if config.model_type not in DECODERS:
        raise UnsupportedModel(
            f"text decoder not supported: {config.model_type}: supported are {', '.join(sorted(DECODERS))}"
        )
    if kv_shape(config).head_dim % HEAD_MULTIPLE:
        raise UnsupportedModel(
            f"attention heads of size {kv_shape(config).head_dim} are not supported: it must be a multiple of "
            f"{HEAD_MULTIPLE}: {config.model_type}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    partial = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)) or 1.0
    if partial != 1.0:
        raise UnsupportedModel(f"partial rotary embedding ({partial}) is not supported: {config.model_type}")


def rotary_limit(config: PreTrainedConfig) -> str | None:
    """The rotary scaling that bounds the context, as one table holds it only up to the original length; else None."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    return kind if kind in SEQUENCE_DEPENDENT_ROPE else None


def longest(config: PreTrainedConfig) -> int:
    """Tokens that an exported decoder of this checkpoint can hold."""
    limit = int(config.max_position_embeddings)
    if rotary_limit(config) is None:
        return limit
    return min(limit, int(config.rope_parameters.get("original_max_position_embeddings", limit)))


def max_context(config: PreTrainedConfig, wanted: int | None, default: int = DEFAULT_MAX_CONTEXT) -> int:
    """Tokens the exported decoder can hold. Raises `ExportError` for more than the checkpoint allows."""
    limit = longest(config)
    if wanted is not None and wanted > limit:
        raise ExportError(f"context too long: {wanted} tokens: this checkpoint allows {limit}")
    return min(limit, wanted or default)


class Decoder(nn.Module):
    """Wraps text model and head, inputs as `decoder_source` lists them. Without a head it only fills the cache."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, model: PreTrainedModel, text_model: nn.Module, head: nn.Linear | None, context: int, mrope: bool
    ) -> None:
        super().__init__()
        self.model = model
        self._text, self._head, self._mrope = [text_model], [head], mrope  # in lists: `model` owns the parameters
        if not mrope:
            cos, sin = rotary_tables(text_model.rotary_emb, context)  # type: ignore[arg-type]
            self.register_buffer("cos", cos)
            self.register_buffer("sin", sin)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns logits [1, K, vocab], where there is a head, and the presents: key and value layer by layer."""
        head, past = self._head[0], list(inputs)
        inputs_embeds = past.pop(0)
        logits_rows = past.pop(0) if head is not None else None
        seqlens_k, total = past.pop(0), past.pop(0)
        positions = past.pop(0) if self._mrope else torch.arange(inputs_embeds.shape[1])[None]
        tables = None if self._mrope else (self.cos, self.sin)
        with ops.bind_cache(ops.CacheBinding(past, seqlens_k, total, tables)) as binding:
            hidden = self._text[0](
                inputs_embeds=inputs_embeds,
                position_ids=positions,
                past_key_values=ops.PassThroughCache(),
                use_cache=True,
            ).last_hidden_state
        if head is None or logits_rows is None:
            return tuple(binding.outputs())
        return (head(hidden.index_select(1, logits_rows)), *binding.outputs())


@torch.no_grad()
def rotary_tables(rotary_emb: nn.Module, context: int) -> tuple[Tensor, Tensor]:
    """cos and sin for every position, [context, head_dim/2] float32, by the checkpoint's own rotary module."""
    positions = torch.arange(context)[None]
    cos, sin = rotary_emb(torch.zeros(1, 1, 1), positions)
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def decoder_source(
    model: PreTrainedModel,
    text_model: nn.Module,
    head: nn.Linear | None,
    config: PreTrainedConfig,
    context: int,
    mrope: bool,
) -> GraphSource:
    """The decoder graph of one model; names and shapes are the contract with the runtime.

    Without a head it fills the KV cache and gives no logits: a graph for prompts alone.
    """
    kv = kv_shape(config)
    cache = (1, kv.kv_heads, "max_tokens", kv.head_dim)
    ports = [
        Port("inputs_embeds", torch.float32, (1, "sequence", config.hidden_size)),
        *([] if head is None else [Port("logits_rows", torch.int64, ("rows",))]),
        Port("seqlens_k", torch.int32, (1,)),
        Port("total_sequence_length", torch.int32, ()),
    ]
    if mrope:
        ports.append(Port("position_ids", torch.int64, (3, 1, "sequence")))
    names = [f"{layer}.{part}" for layer in range(kv.layers) for part in ("key", "value")]
    ports += [Port(f"past_key_values.{name}", torch.float32, cache) for name in names]
    return GraphSource(
        module=Decoder(model, text_model, head, context, mrope),
        inputs=tuple(ports),
        outputs=(*([] if head is None else ["logits"]), *(f"present.{name}" for name in names)),
        sizes={"sequence": 5, "rows": 3, "max_tokens": 17},
        rotary="outside" if mrope else "inside",
        fixed={"max_tokens": context},
    )
