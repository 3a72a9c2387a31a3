"""Qwen3.5 (Qwen 2026): Qwen3-VL's tower without DeepStack, linear attention beside full attention.

Most layers of the text model have no keys and values: a convolution over the last few positions makes queries, keys and
values of a gated delta rule (Yang et al. 2024), whose matrix for each head is all that stays of what was read. The
others attend to everything, their heads rotated in part and their output gated. Models with experts are not of this
family.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from edgevlm_export.families.qwens.qwen3_vl import Qwen3VL
from edgevlm_export.families.text_config import attention_layers
from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import Forwards
from edgevlm_runtime.bundle.decoder_info import StateInfo

EPSILON = 1e-6
"""Added to the squared length of queries and keys before they are divided by it."""


class Qwen35(Qwen3VL):
    """`Qwen3_5ForConditionalGeneration`."""

    model_type = "qwen3_5"

    @property
    def deepstack(self) -> dict[str, int]:
        return {}

    @property
    def states(self) -> tuple[StateInfo, ...]:
        return states(self.text_config)

    @property
    def forwards(self) -> Forwards:
        return ((Qwen3_5GatedDeltaNet, gated_delta_net),)


def states(config: PreTrainedConfig) -> tuple[StateInfo, ...]:
    """Of each layer with linear attention: what its convolution saw last, [1, kernel - 1, channels], and its matrices,
    [1, heads, key_dim, value_dim]."""
    heads, key, value = config.linear_num_value_heads, config.linear_key_head_dim, config.linear_value_head_dim
    channels = 2 * config.linear_num_key_heads * key + heads * value
    found = []
    for layer in sorted(set(range(config.num_hidden_layers)) - set(attention_layers(config))):
        found.append(StateInfo(f"conv.{layer}", "float32", (1, config.linear_conv_kernel_dim - 1, channels)))
        found.append(StateInfo(f"delta.{layer}", "float32", (1, heads, key, value)))
    return tuple(found)


def gated_delta_net(module: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
    """`Qwen3_5GatedDeltaNet.forward` over positions as they lie, [1, S, hidden], its states carried by the graph."""
    layer, activation, gate = module.layer_idx, ACT2FN[module.activation], ACT2FN[module.norm.activation]
    mixed = ops.causal_conv(
        module.in_proj_qkv(hidden_states), module.conv1d.weight, module.conv1d.bias, f"conv.{layer}"
    )
    q, k, v = activation(mixed).split([module.key_dim, module.key_dim, module.value_dim], dim=-1)
    q, k = (_unit(x, module.head_k_dim) for x in (q, k))
    beta = module.in_proj_b(hidden_states).sigmoid()
    log_decay = -module.A_log.exp() * nn.functional.softplus(module.in_proj_a(hidden_states) + module.dt_bias)
    read = ops.gated_delta(q, k, v, log_decay, beta, module.num_k_heads, f"delta.{layer}")
    by_head = read.unflatten(-1, (-1, module.head_v_dim))
    normed = ops.rms_norm(by_head, module.norm.weight, module.norm.variance_epsilon).flatten(-2)
    projected: Tensor = module.out_proj(normed * gate(module.in_proj_z(hidden_states)))
    return projected


def _unit(x: Tensor, dim: int) -> Tensor:
    """Heads of `dim` numbers in [1, S, heads*dim], each divided by its length: by a norm whose mean of squares is
    `dim` times smaller than the sum."""
    weight = torch.full((dim,), dim**-0.5, dtype=x.dtype)
    return ops.rms_norm(x.unflatten(-1, (-1, dim)), weight, EPSILON / dim).flatten(-2)


FAMILY = Qwen35
