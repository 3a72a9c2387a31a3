"""The neutral operators of a traced graph.

A trace holds standard ONNX operators plus eight of domain `edgevlm`, which a dialect
(`edgevlm_export.graphs.dialects`) lowers to what its engine runs fastest.
They keep every decision about kernels, caches and number formats out of the trace:

    Linear(x, weight[, bias])                           weight [out, in], as torch holds it
    RMSNorm(x, weight)                                  attribute epsilon
    Rotary(x, cos, sin)                                 x [1, S, heads*dim], cos and sin [S, dim/2]; attribute num_heads
    Attention(q, k, v[, valid])                         bidirectional; [B, S, heads*dim], valid [B, S] bool (keys)
    CausalAttention(q, k, v, past_k, past_v, seqlens_k, total[, cos, sin[, block_rows, block_mask]])
                                                        owns the KV cache [1, kv_heads, T, dim]; rotates by the tables;
                                                        rows [B] of the S see what the mask [B, T'] says instead
    SharedAttention(q, k, v, seqlens_k, total[, block_rows, block_mask])
                                                        likewise, over a cache that an earlier layer has written;
                                                        queries come rotated
    CausalConv(x, weight, past_state[, bias])           each channel by itself, over the K last positions: x [1, S, C],
                                                        weight [C, 1, K], state [1, K-1, C], the inputs before x
    GatedDelta(q, k, v, log_decay, beta, past_state)    linear attention by the gated delta rule, float32 throughout:
                                                        q, k [1, S, key_heads*key_dim], v [1, S, heads*value_dim],
                                                        log_decay and beta [1, S, heads], state [1, heads, key_dim,
                                                        value_dim]; attributes key_heads, heads, scale

`neutral.neutral_ops` is the context in which a model's forward emits them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

DOMAIN = "edgevlm"


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


def gated_delta(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, key_heads: int, state: str) -> Tensor:
    """Linear attention by the gated delta rule (Yang et al. 2024), within a decoder: [1, S, heads*value_dim].

    At each position and in each head, the matrix M that `state` names (`Family.states`: [1, heads, key_dim, value_dim])
    fades by exp(log_decay), is corrected towards v at k, M += beta k (v - k M), and is read at q, y = q M. q and k are
    of unit length, [1, S, key_heads*key_dim], each of their heads serving as many consecutive ones of v; what is read
    is divided by the root of key_dim.
    """
    binding = bound_cache()
    past = binding.states[state]
    attributes = {"key_heads": key_heads, "heads": beta.shape[-1], "scale": float(past.shape[2]) ** -0.5}
    outputs = [(v.dtype, v.shape), (past.dtype, past.shape)]
    y, binding.new_states[state] = emit("GatedDelta", [q, k, v, log_decay, beta, past], attributes, outputs)
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
    shared: Mapping[int, int] = field(default_factory=dict)
    """Layers that read what an earlier one has written, each with that one."""
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
    """That of the decoder being traced."""
    return _binding[-1]


def traces_decoder() -> bool:
    """Whether a decoder is being traced, and no tower."""
    return bool(_binding)


@contextmanager
def bind_cache(binding: CacheBinding) -> Iterator[CacheBinding]:
    """Causal attention traced inside uses this binding."""
    _binding.append(binding)
    try:
        yield binding
    finally:
        _binding.pop()
