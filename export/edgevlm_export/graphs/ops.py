"""The neutral operators of a traced graph, and the seam that makes transformers' modules emit them.

A trace holds standard ONNX operators plus six of domain `edgevlm`, which a dialect
(`edgevlm_export.graphs.dialects`) lowers to what its engine runs fastest.
They keep every decision about kernels, caches and number formats out of the trace:

    Linear(x, weight[, bias])                           weight [out, in], as torch holds it
    RMSNorm(x, weight)                                  attribute epsilon
    Rotary(x, cos, sin)                                 x [1, S, heads*dim], cos and sin [S, dim/2]; attribute num_heads
    Attention(q, k, v[, valid])                         bidirectional; [B, S, heads*dim], valid [B, S] bool (keys)
    CausalAttention(q, k, v, past_k, past_v, seqlens_k, total[, cos, sin[, block_rows, block_mask]])
                                                        owns the KV cache [1, kv_heads, T, dim]; rotates by the tables;
                                                        rows [B] of the S see what the mask [B, T'] says instead
    CausalConv(x, weight, past_state[, bias])           each channel by itself, over the K last positions: x [1, S, C],
                                                        weight [C, 1, K], state [1, K-1, C], the inputs before x

`neutral_ops(model, rotary, forwards)` is the context in which a model's forward emits them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel

from edgevlm_runtime.errors import UnsupportedModel

DOMAIN = "edgevlm"
Forwards = tuple[tuple[type[nn.Module], Callable[..., Tensor]], ...]
"""Classes of modules, each with what is called in place of its forward, with the module first."""
IMPLEMENTATION = "edgevlm"
"""The name under which our attention is registered with transformers."""


def emit(
    op: str, inputs: list[Tensor | None], attributes: dict[str, Any], outputs: list[tuple[torch.dtype, Any]]
) -> list[Tensor]:
    """Put one neutral operator into the trace and return its (symbolic) outputs."""
    return list(
        torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{op}",
            inputs,
            attributes,
            dtypes=[dtype for dtype, _ in outputs],
            shapes=[shape for _, shape in outputs],
            version=1,
        )
    )


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`nn.Linear.forward`, as one operator."""
    inputs = [x, module.weight] + ([] if module.bias is None else [module.bias])
    return emit("Linear", list(inputs), {}, [(x.dtype, (*x.shape[:-1], module.out_features))])[0]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square layer normalisation over the last axis (Zhang and Sennrich 2019)."""
    return emit("RMSNorm", [x, weight], {"epsilon": float(epsilon)}, [(x.dtype, x.shape)])[0]


def rotary(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Rotate halves (Su et al. 2021, the GPT-NeoX layout). x: [1, S, heads*dim]; cos, sin: [S, dim/2]."""
    return emit("Rotary", [x, cos, sin], {"num_heads": num_heads}, [(x.dtype, x.shape)])[0]


def attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int, scale: float, valid: Tensor | None = None) -> Tensor:
    """Bidirectional attention. q, k, v: [B, S, heads*dim]; `valid` [B, S] marks keys that count."""
    inputs = [q, k, v] + ([] if valid is None else [valid])
    return emit("Attention", list(inputs), {"num_heads": num_heads, "scale": float(scale)}, [(q.dtype, q.shape)])[0]


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, state: str) -> Tensor:
    """Depthwise convolution over a position and those before it, within a decoder. x: [1, S, C]; weight: [C, 1, K].

    `state` names what is carried from run to run (`Family.states`): the K-1 inputs before x, [1, K-1, C].
    """
    binding = bound_cache()
    past = binding.states[state]
    inputs = [x, weight, past] + ([] if bias is None else [bias])
    y, binding.new_states[state] = emit("CausalConv", list(inputs), {}, [(x.dtype, x.shape), (past.dtype, past.shape)])
    return y


@dataclass
class CacheBinding:
    """The decoder graph's cache inputs while it is traced, and the outputs collected layer by layer."""

    past: list[Tensor]
    """Key and value of layer 0, key and value of layer 1, ...: [1, kv_heads, T, dim] each."""
    seqlens_k: Tensor
    total: Tensor
    tables: tuple[Tensor, Tensor] | None
    """cos and sin, [max_context, dim/2], when the operator rotates; None when the graph does."""
    block_rows: Tensor | None = None
    """Rows [B] of tokens that see later ones; None where none ever do."""
    block_masks: Mapping[int, Tensor] = field(default_factory=dict)
    """What these see, bool [B, T'] each, by the window of the layer (0 is none)."""
    rotated: bool = False
    """Whether the layer that is being traced has rotated its queries and keys."""
    layers: Sequence[int] = ()
    """Which of the model's layers have keys and values; all where none is named."""
    states: Mapping[str, Tensor] = field(default_factory=dict)
    """What other layers carry from run to run, by name."""
    present: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    new_states: dict[str, Tensor] = field(default_factory=dict)

    def cache(self, layer: int) -> list[Tensor]:
        """Past key and value of a layer."""
        slot = self.layers.index(layer) if self.layers else layer
        return self.past[2 * slot : 2 * slot + 2]

    def outputs(self) -> list[Tensor]:
        """The presents in the order of `past`, then the new states in the order of the old."""
        presents = [tensor for layer in sorted(self.present) for tensor in self.present[layer]]
        return presents + [self.new_states[name] for name in self.states]


_binding: list[CacheBinding] = []


def bound_cache() -> CacheBinding:
    """That of the decoder being traced, for modules of a family that carry a state."""
    return _binding[-1]


@contextmanager
def bind_cache(binding: CacheBinding) -> Iterator[CacheBinding]:
    """Causal attention traced inside uses this binding."""
    _binding.append(binding)
    try:
        yield binding
    finally:
        _binding.pop()


class PassThroughCache(Cache):
    """Hands new keys and values on unchanged: the CausalAttention operator owns the real cache."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        return 0

    def get_query_offset(self, *args: Any, **kwargs: Any) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return query_length, 0


def _rows(x: Tensor) -> Tensor:
    """[B, heads, S, dim] to [B, S, heads*dim]."""
    return x.transpose(1, 2).flatten(2)


def _attention_function(  # noqa: PLR0913, PLR0917 (the signature is transformers')
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in place of eager attention: one operator, [B, S, heads, dim] out.

    Raises `UnsupportedModel` for what the operator would not do.
    """
    if attention_mask is not None or kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise UnsupportedModel(
            f"{type(module).__name__} attends by a mask, a bias or sinks of its own, which the graph would leave out"
        )
    batch, heads, length, dim = query.shape
    q, k, v = _rows(query), _rows(key), _rows(value)
    scale = dim**-0.5 if scaling is None else scaling
    if not _binding:
        return attention(q, k, v, heads, scale).view(batch, length, heads, dim), None
    binding, layer = _binding[-1], int(module.layer_idx)  # type: ignore[arg-type]
    if not getattr(module, "is_causal", False) and binding.block_rows is None:
        raise UnsupportedModel(f"{type(module).__name__} attends in both directions, which the graph would not do")
    past_key, past_value = binding.cache(layer)
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": key.shape[1], "scale": float(scale)}
    if sliding_window is not None:
        attributes["sliding_window"] = int(sliding_window)
    if softcap is not None:
        attributes["softcap"] = float(softcap)
    inputs: list[Tensor | None] = [q, k, v, past_key, past_value, binding.seqlens_k, binding.total]
    inputs += (binding.tables or ()) if binding.rotated else ()
    binding.rotated = False
    if binding.block_rows is not None:
        inputs += [binding.block_rows, binding.block_masks[sliding_window or 0]]
        attributes["blocks"] = 1
    output, present_key, present_value = emit(
        "CausalAttention",
        inputs,
        attributes,
        [(q.dtype, q.shape), (past_key.dtype, past_key.shape), (past_value.dtype, past_value.shape)],
    )
    binding.present[layer] = (present_key, present_value)
    return output.view(batch, length, heads, dim), None


def _mask_function(*args: Any, allow_is_causal_skip: bool = True, **kwargs: Any) -> None:
    """What transformers calls to make a mask: the operator has its own. Raises `UnsupportedModel` for one that is more
    than causal attention within a window."""
    if not allow_is_causal_skip:
        raise UnsupportedModel("the text model attends by a mask that is not causal, which the graph would leave out")


AttentionInterface.register(IMPLEMENTATION, _attention_function)
AttentionMaskInterface.register(IMPLEMENTATION, _mask_function)


def _rotate_inside(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Stands in for `apply_rotary_pos_emb` where the CausalAttention operator rotates."""
    _binding[-1].rotated = True
    return q, k


def _rotate_outside(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Stands in for `apply_rotary_pos_emb` where positions are inputs. Tables: [1, S, width]; of each head the first
    `width` numbers are rotated, which are all but in a partial rotary embedding."""
    width = cos.shape[-1]
    cos, sin = cos[0, :, : width // 2], sin[0, :, : width // 2]

    def rotate(x: Tensor) -> Tensor:
        batch, heads, length, dim = x.shape
        if width < dim:
            return torch.cat([rotate(x[..., :width]), x[..., width:]], dim=-1)
        return rotary(_rows(x), cos, sin, heads).view(batch, length, heads, dim).transpose(1, 2)

    return rotate(q), rotate(k)


ROTARY: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"inside": _rotate_inside, "outside": _rotate_outside}


def _patch_rms_norm(module: nn.Module) -> None:
    """Give one RMSNorm instance a forward that emits the operator (class-specific weight offsets respected)."""
    epsilon: Any = getattr(module, "variance_epsilon", None) or module.eps
    offset = 1.0 if type(module).__name__ in ADDS_ONE else 0.0

    def forward(hidden_states: Tensor) -> Tensor:
        stored: Any = module.weight
        return rms_norm(hidden_states, stored + offset if offset else stored, epsilon)

    module.forward = forward


ADDS_ONE = frozenset({"GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm"})
"""RMSNorm classes whose stored weight is an offset from one."""


DEEPSTACK = "_deepstack_process"
"""The method of text models that adds image columns to hidden states."""


def _add_columns(hidden: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
    """What it does where the columns are given for every position (`Family.column_arguments`), [B, S, hidden]."""
    return hidden + columns


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` inside, and what it was afterwards."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def neutral_ops(model: PreTrainedModel, rotary: str, forwards: Forwards = ()) -> Iterator[None]:
    """Within, `model`'s forward emits neutral operators. The model is for tracing only afterwards.

    `rotary` is "inside" or "outside" (see `CausalAttention`); `forwards`: see `GraphSource`.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation = IMPLEMENTATION
        if type(module).__name__.endswith("RMSNorm"):
            _patch_rms_norm(module)
        if hasattr(module, DEEPSTACK):
            setattr(module, DEEPSTACK, _add_columns)
        if (forward := dict(forwards).get(type(module))) is not None:
            module.forward = partial(forward, module)
    sources = {type(module).__module__ for module in model.modules()}
    with ExitStack() as stack:
        stack.enter_context(replaced(nn.Linear, "forward", linear))
        for name in sources:
            source = sys.modules[name]
            if hasattr(source, "apply_rotary_pos_emb"):
                stack.enter_context(replaced(source, "apply_rotary_pos_emb", ROTARY[rotary]))
        yield
