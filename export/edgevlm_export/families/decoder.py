"""The decoder graph, shared by every family: token and image embeddings in, logits and an updated KV cache out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.text_config import SEQUENCE_DEPENDENT_ROPE, attention_layers, kv_shape, shared_layers
from edgevlm_export.graphs import neutral, ops
from edgevlm_export.graphs.source import Forwards, GraphSource, Port
from edgevlm_runtime.bundle.decoder_info import StateInfo
from edgevlm_runtime.decoding.step_inputs import BLOCK_ROWS
from edgevlm_runtime.errors import UnsupportedModel

EMBEDDINGS = "inputs_embeds"
PAST, STATE = "past_key_values.", "past_state."


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

    def held(kind: Any) -> Any:
        return "default" if kind in SEQUENCE_DEPENDENT_ROPE else kind

    module: Any
    for module in text_model.modules():
        kind = getattr(module, "rope_type", None)  # one, or one for each type of layer
        if kind is not None:
            many = isinstance(kind, dict)
            module.rope_type = {layers: held(one) for layers, one in kind.items()} if many else held(kind)


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
