"""The seam that makes transformers' modules emit neutral operators (`ops`) while they are traced.

transformers finds attention and masks by name (`AttentionInterface`), so these are registered; rotations, norms and
linear layers have no such name and are replaced for the time of a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel

from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import Forwards
from edgevlm_runtime.errors import UnsupportedModel

IMPLEMENTATION = "edgevlm"
"""The name under which our attention is registered with transformers."""


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
    if not ops.traces_decoder():
        _check_tower(module, sliding_window, softcap, heads, key.shape[1])
        return ops.attention(q, k, v, heads, scale).view(batch, length, heads, dim), None
    binding, layer = ops.bound_cache(), int(module.layer_idx)  # type: ignore[arg-type]
    if not getattr(module, "is_causal", False) and binding.block_rows is None:
        raise UnsupportedModel(f"{type(module).__name__} attends in both directions, which the graph would not do")
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": key.shape[1], "scale": float(scale)}
    if sliding_window is not None:
        attributes["sliding_window"] = int(sliding_window)
    if softcap is not None:
        attributes["softcap"] = float(softcap)
    blocks: list[Tensor | None] = []
    if (mask := binding.block_masks.get(sliding_window or 0)) is not None:
        blocks, attributes["blocks"] = [binding.block_rows, mask], 1
    emit_attention = _shared_attention if layer in binding.shared else _own_attention
    return emit_attention(binding, layer, [q, k, v], blocks, attributes).view(batch, length, heads, dim), None


def _check_tower(
    module: nn.Module, sliding_window: int | None, softcap: float | None, heads: int, kv_heads: int
) -> None:
    """Raise `UnsupportedModel` for attention in a vision tower that is more than what the operator does there: every
    patch sees every other."""
    found = {
        "in one direction": getattr(module, "is_causal", False),
        f"within a window of {sliding_window}": sliding_window is not None,
        f"under a soft cap of {softcap}": softcap is not None,
        f"with {kv_heads} heads of keys for {heads} of queries": kv_heads != heads,
    }
    for how, attends in found.items():
        if attends:
            raise UnsupportedModel(f"{type(module).__name__} attends {how}, which the tower's graph would not do")


def _own_attention(
    binding: ops.CacheBinding, layer: int, qkv: list[Tensor], blocks: list[Tensor | None], attributes: dict[str, Any]
) -> Tensor:
    """Of a layer with keys and values of its own."""
    q, past = qkv[0], binding.cache(layer)
    inputs: list[Tensor | None] = [*qkv, *past, binding.seqlens_k, binding.total]
    inputs += (binding.tables or ()) if binding.rotated else ()
    binding.rotated = False
    made = [(tensor.dtype, tensor.shape) for tensor in (q, *past)]
    output, *present = ops.emit("CausalAttention", inputs + blocks, attributes, made)
    binding.present[layer] = (present[0], present[1])
    return output


def _shared_attention(
    binding: ops.CacheBinding, layer: int, qkv: list[Tensor], blocks: list[Tensor | None], attributes: dict[str, Any]
) -> Tensor:
    """Of a layer that reads what another has written: the new keys and values are in the cache already."""
    q, present = qkv[0], binding.present[binding.shared[layer]]
    inputs: list[Tensor | None] = [q, *present, binding.seqlens_k, binding.total, *blocks]
    return ops.emit("SharedAttention", inputs, attributes, [(q.dtype, q.shape)])[0]


def _mask_function(*args: Any, allow_is_causal_skip: bool = True, **kwargs: Any) -> None:
    """What transformers calls to make a mask: the operator has its own. Raises `UnsupportedModel` for one that is more
    than causal attention within a window."""
    if not allow_is_causal_skip:
        raise UnsupportedModel("the text model attends by a mask that is not causal, which the graph would leave out")


AttentionInterface.register(IMPLEMENTATION, _attention_function)
AttentionMaskInterface.register(IMPLEMENTATION, _mask_function)


def _rotate_inside(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Stands in for `apply_rotary_pos_emb` where the CausalAttention operator rotates."""
    ops.bound_cache().rotated = True
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
        return ops.rotary(_rows(x), cos, sin, heads).view(batch, length, heads, dim).transpose(1, 2)

    return rotate(q), rotate(k)


ROTARY: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"inside": _rotate_inside, "outside": _rotate_outside}


def _rotate_one(x: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Tensor:
    """Stands in for an `apply_rotary_pos_emb` of one tensor [1, S, heads, dim] (Gemma 4). Tables: [1, S, dim]."""
    assert unsqueeze_dim == 2
    heads, half = x.shape[2], cos.shape[-1] // 2
    return ops.rotary(x.flatten(2), cos[0, :, :half], sin[0, :, :half], heads).view(x.shape)


def _rotation(original: Callable[..., Any], where: str) -> Callable[..., Any]:
    """What stands in for a module's `apply_rotary_pos_emb`."""
    return _rotate_one if next(iter(signature(original).parameters)) == "x" else ROTARY[where]


def _patch_rms_norm(module: nn.Module) -> None:
    """Give one RMSNorm instance a forward that emits the operator (class-specific weight offsets respected)."""
    epsilon: Any = getattr(module, "variance_epsilon", None) or module.eps
    offset = 1.0 if type(module).__name__ in ADDS_ONE else 0.0

    def forward(hidden_states: Tensor) -> Tensor:
        stored: Any = getattr(module, "weight", None)
        if stored is None:  # a norm without a scale
            stored = torch.ones(hidden_states.shape[-1])
        return ops.rms_norm(hidden_states, stored + offset if offset else stored, epsilon)

    module.forward = forward


ADDS_ONE = frozenset({"GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm", "Qwen3_5RMSNorm"})
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
        stack.enter_context(replaced(nn.Linear, "forward", ops.linear))
        for name in sources:
            source = sys.modules[name]
            if hasattr(source, "apply_rotary_pos_emb"):
                stands_in = _rotation(source.apply_rotary_pos_emb, rotary)
                stack.enter_context(replaced(source, "apply_rotary_pos_emb", stands_in))
        yield
