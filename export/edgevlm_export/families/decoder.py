"""The decoder graph, shared by every family: token and image embeddings in, logits and an updated KV cache out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.graphs import neutral, ops
from edgevlm_export.graphs.source import Forwards, GraphSource, Port
from edgevlm_runtime.bundle.decoder_info import StateInfo
from edgevlm_runtime.decoding.step_inputs import BLOCK_ROWS
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
    }
)
"""`model_type`s of text models whose attention this module's operator reproduces, each proven by a test."""

EMBEDDINGS = "inputs_embeds"
PAST, STATE = "past_key_values.", "past_state."
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


class Columns(Protocol):
    """What positions bring beside their embeddings: an input of the decoder's graph, float32 [1, S, width]."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a family's decoder graph has beside tokens' embeddings and causal attention."""

    mrope: bool = False
    """Position ids have three rows (multimodal rotary embedding)."""
    outside: bool = False
    """Whether the graph's own operators rotate (`rotates_outside`); with `mrope` they always do."""
    columns: tuple[Columns, ...] = ()
    """What image tokens, or all tokens, bring beside their embeddings."""
    arguments: Callable[[Mapping[str, Tensor]], dict[str, Any]] = lambda columns: {}
    """What the text model is called with for these, by name, [B, S, width] each."""
    masks: Mapping[str, int] = field(default_factory=dict)
    """Masks of tokens that see later ones, each with the window of its layers; none where no token does."""
    states: tuple[StateInfo, ...] = ()
    """What layers without keys and values carry from run to run."""
    forwards: Forwards = ()
    """See `Family.forwards`."""
    whole: bool = False
    """Whether a prompt is computed in one run, whatever its length."""
    logit_cap: float | None = None
    """Logits are kept within plus and minus this by a hyperbolic tangent (Gemma 2's soft cap)."""

    @property
    def rotary(self) -> str:
        """Key of `neutral.ROTARY`."""
        return "outside" if self.outside or self.mrope else "inside"


class Decoder(nn.Module):
    """Wraps text model and head, inputs as `decoder_source` lists them. Without a head it only fills the cache."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        text_model: nn.Module,
        head: nn.Linear | None,
        context: int,
        wiring: Wiring,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.model = model
        self._text, self._head = [text_model], [head]  # in lists: `model` owns the parameters
        self._wiring, self._names = wiring, tuple(names)
        hold_frequencies(text_model)
        if wiring.rotary == "inside":
            cos, sin = rotary_tables(text_model.rotary_emb, context)  # type: ignore[arg-type]
            self.register_buffer("cos", cos)
            self.register_buffer("sin", sin)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns logits [1, K, vocab], where there is a head, and the presents: key and value layer by layer."""
        head, given = self._head[0], dict(zip(self._names, inputs, strict=True))
        embeds = given[EMBEDDINGS]
        inside = self._wiring.rotary == "inside"
        cache = ops.CacheBinding(
            past=[value for name, value in given.items() if name.startswith(PAST)],
            seqlens_k=given["seqlens_k"],
            total=given["total_sequence_length"],
            tables=(self.cos, self.sin) if inside else None,
            block_rows=given.get(BLOCK_ROWS),
            layers=attention_layers(self._text[0].config),
            shared=shared_layers(self._text[0].config),
            states={state.name: given[f"{STATE}{state.name}"] for state in self._wiring.states},
            block_masks={window: given[name] for name, window in self._wiring.masks.items()},
        )
        with ops.bind_cache(cache) as binding:
            hidden = self._text[0](
                inputs_embeds=embeds,
                position_ids=torch.arange(embeds.shape[1])[None] if inside else given["position_ids"],
                past_key_values=neutral.PassThroughCache(),
                use_cache=True,
                **self._wiring.arguments({columns.name: given[columns.name] for columns in self._wiring.columns}),
            ).last_hidden_state
        if head is None:
            return tuple(binding.outputs())
        logits = head(hidden.index_select(1, given["logits_rows"]))
        return (soft_cap(logits, self._wiring.logit_cap), *binding.outputs())


def soft_cap(values: Tensor, cap: float | None) -> Tensor:
    """Held within plus and minus `cap` by a hyperbolic tangent, where there is one."""
    return values if cap is None else torch.tanh(values / cap) * cap


def hold_frequencies(text_model: nn.Module) -> None:
    """Let rotary modules keep the frequencies that they begin with, which a scaling that depends on the sequence's
    length has up to the original context: `longest` allows no more, and a length is not known while a graph is traced.
    """
    for module in text_model.modules():
        kind = getattr(module, "rope_type", None)
        if kind is not None:
            module.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"  # type: ignore[assignment]


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
    wiring: Wiring,
) -> GraphSource:
    """The decoder graph of one model; names and shapes are the contract with the runtime.

    Without a head it fills the KV cache and gives no logits: a graph for prompts alone. Raises `UnsupportedModel` for
    layers whose state nobody carries.
    """
    kv = kv_shape(config)
    if kv.layers + len(shared_layers(config)) < config.num_hidden_layers and not wiring.states:
        raise UnsupportedModel(
            f"text decoder not supported in this family: {config.model_type}: its layers have states"
        )
    ports = [
        Port(EMBEDDINGS, torch.float32, (1, "sequence", config.hidden_size)),
        *(Port(columns.name, torch.float32, (1, "sequence", columns.width)) for columns in wiring.columns),
        *([] if head is None else [Port("logits_rows", torch.int64, ("rows",))]),
        Port("seqlens_k", torch.int32, (1,)),
        Port("total_sequence_length", torch.int32, ()),
    ]
    if wiring.masks:
        ports.append(Port(BLOCK_ROWS, torch.int64, ("block",)))
        ports += [Port(name, torch.bool, ("block", "seen")) for name in wiring.masks]
    if wiring.rotary == "outside":
        shape = (3, 1, "sequence") if wiring.mrope else (1, "sequence")
        ports.append(Port("position_ids", torch.int64, shape))
    names = [f"{layer}.{part}" for layer in range(kv.layers) for part in ("key", "value")]
    caches = [(1, heads, "max_tokens", dim) for heads, dim in kv.sizes for _ in ("key", "value")]
    ports += [Port(f"{PAST}{name}", torch.float32, cache) for name, cache in zip(names, caches, strict=True)]
    ports += [Port(f"{STATE}{state.name}", torch.float32, state.shape) for state in wiring.states]
    presents = [f"present.{name}" for name in names] + [f"present_state.{state.name}" for state in wiring.states]
    return GraphSource(
        module=Decoder(model, text_model, head, context, wiring, [port.name for port in ports]),
        inputs=tuple(ports),
        outputs=(*([] if head is None else ["logits"]), *presents),
        sizes={"sequence": 5, "rows": 3, "max_tokens": 17, "block": 4, "seen": 7},
        rotary=wiring.rotary,
        fixed={"max_tokens": context},
        ranges={"sequence": (1, 1, context)} if wiring.whole else {},
        masks=wiring.masks,
        forwards=wiring.forwards,
    )
