"""ONNX's own operators and no others, for TensorRT and TensorRT-RTX; ONNX Runtime runs them too.

CausalAttention -> RotaryEmbedding, TensorScatter into a cache of fixed length, Attention with an explicit mask
(`decoder`); Attention -> Attention (`attention`); Rotary -> RotaryEmbedding; RMSNorm -> RMSNormalization; CausalConv ->
Concat, Conv, Slice; GatedDelta -> Scan (`gated_delta`).
The parsers of both engines drop or refuse is_causal, past and present inputs, nonpad_kv_seqlen and softcap, so none of
them is used: what the mask cannot say is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from edgevlm_export.graphs.dialects.standard import decoder, pixels
from edgevlm_export.graphs.dialects.standard.attention import attention
from edgevlm_export.graphs.dialects.standard.gated_delta import gated_delta
from edgevlm_export.graphs.dialects.standard.simple import causal_conv, rms_norm, rotary
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.source import GraphSource
from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.errors import UnsupportedModel

OPSET = 24
"""First opset with TensorScatter."""

LOWERINGS: dict[str, Callable[[ir.Node], None]] = {
    "Attention": attention,
    "Rotary": rotary,
    "RMSNorm": rms_norm,
    "CausalConv": causal_conv,
    "GatedDelta": gated_delta,
}


def lower(model: ir.Model, source: GraphSource) -> StepInputs:
    """See `Dialect.lower`. Raises `UnsupportedModel` for an operator that the targets do not take."""
    step_inputs = decoder.lower(model, source)
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type in LOWERINGS:
            LOWERINGS[node.op_type](node)
    pixels.widen(model)
    model.opset_imports[""] = OPSET
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    check_operators(model)
    return step_inputs


def fuse(model: ir.Model) -> None:
    """See `Dialect.fuse`: the builders fuse by themselves."""


def check_operators(model: ir.Model) -> None:
    """Only ONNX's own operators, and Linear, are there. Raises `UnsupportedModel` naming the first other one."""
    for node in model.graph:
        if node.domain and (node.domain, node.op_type) != (DOMAIN, "Linear"):
            raise UnsupportedModel(
                f"operator {node.domain}::{node.op_type} is not in ONNX's own set, which this target needs: "
                "use --target onnx"
            )
