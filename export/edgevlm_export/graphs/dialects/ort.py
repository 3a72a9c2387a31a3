"""ONNX Runtime's own operators (domain com.microsoft): the KV cache updated in place, attention fused.

CausalAttention and SharedAttention -> GroupQueryAttention, Attention -> MultiHeadAttention, Rotary -> RotaryEmbedding,
RMSNorm -> SimplifiedLayerNormalization, CausalConv -> CausalConvWithState, GatedDelta -> LinearAttention. Once every
layer is lowered, what fits together is fused (`edgevlm_export.graphs.fusions`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevlm_export.graphs import fusions
from edgevlm_export.graphs.dialects import blockwise
from edgevlm_export.graphs.edit import MICROSOFT, constant_before, insert_before, replace
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.source import GraphSource
from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.errors import UnsupportedModel

HEAD_MULTIPLE = 8
"""What the size of GroupQueryAttention's heads must be a multiple of."""


def lower(model: ir.Model, source: GraphSource) -> StepInputs:
    """See `Dialect.lower`."""
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type in LOWERINGS:
            LOWERINGS[node.op_type](node)
    model.opset_imports[MICROSOFT] = 1
    common.CommonSubexpressionEliminationPass()(model)  # arange and masks made once a layer
    common.RemoveUnusedNodesPass()(model)
    return StepInputs("in_place", dict(source.masks))


def fuse(model: ir.Model) -> None:
    """See `Dialect.fuse`."""
    fusions.fuse(model)


def _causal_attention(node: ir.Node) -> None:
    """Inputs map one to one; a sliding window of w keys including the token itself is local_window_size w."""
    q, k, v, past_k, past_v, seqlens_k, total, *tables = node.inputs
    _check_head_size(past_k)
    blocks = [tables.pop() for _ in range(2)][::-1] if "blocks" in node.attributes else []
    inputs = [q, k, v, past_k, past_v, seqlens_k, total, *tables]
    attention = replace(node, "GroupQueryAttention", inputs, _attributes(node, bool(tables)), MICROSOFT)
    if blocks:
        blockwise.attend(attention, *blocks)


def _shared_attention(node: ir.Node) -> None:
    """No new keys and values, and none written: the cache is read as the earlier layer has left it in this run."""
    q, keys, values, seqlens_k, total, *blocks = node.inputs
    assert keys is not None
    assert keys.shape is not None
    width = node.attributes["kv_num_heads"].as_int() * int(str(keys.shape[3]))
    none = constant_before(node, np.zeros((1, 0, width), np.float32))
    inputs = [q, none, none, keys, values, seqlens_k, total]
    attention = replace(node, "GroupQueryAttention", inputs, _attributes(node, rotates=False), MICROSOFT)
    if blocks:
        blockwise.attend(attention, *blocks)


def _attributes(node: ir.Node, rotates: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "num_heads": node.attributes["num_heads"].as_int(),
        "kv_num_heads": node.attributes["kv_num_heads"].as_int(),
        "scale": node.attributes["scale"].as_float(),
        "do_rotary": int(rotates),
    }
    if "sliding_window" in node.attributes:
        attributes["local_window_size"] = node.attributes["sliding_window"].as_int()
    if "softcap" in node.attributes:
        attributes["softcap"] = node.attributes["softcap"].as_float()
    return attributes


def _check_head_size(past: ir.Value | None) -> None:
    """Raise `UnsupportedModel` for heads that the operator would refuse when it runs."""
    dim = past.shape[3] if past is not None and past.shape is not None else None
    if isinstance(dim, int) and dim % HEAD_MULTIPLE:
        raise UnsupportedModel(
            f"head size {dim} not supported: ONNX Runtime's attention takes multiples of {HEAD_MULTIPLE}: use "
            "--target tensorrt"
        )


def _attention(node: ir.Node) -> None:
    """`valid` [B, S] bool becomes MultiHeadAttention's key padding mask."""
    q, k, v, *valid = node.inputs
    inputs: list[ir.Value | None] = [q, k, v]
    if valid:
        cast = insert_before(node, "Cast", [valid[0]], {"to": ir.DataType.INT32})
        inputs += [None, cast]
    attributes = {"num_heads": node.attributes["num_heads"].as_int(), "scale": node.attributes["scale"].as_float()}
    replace(node, "MultiHeadAttention", inputs, attributes, MICROSOFT)


def _rotary(node: ir.Node) -> None:
    """cos and sin hold one row for each of the S positions, so position ids are simply 0..S-1."""
    x, cos, sin = node.inputs
    length = insert_before(node, "Shape", [cos], {"start": 0, "end": 1})
    scalar = insert_before(node, "Squeeze", [length], {})
    zero, one = (constant_before(node, np.array(value, np.int64)) for value in (0, 1))
    count = insert_before(node, "Range", [zero, scalar, one], {})
    positions = insert_before(node, "Unsqueeze", [count, constant_before(node, np.array([0], np.int64))], {})
    attributes = {"num_heads": node.attributes["num_heads"].as_int()}
    replace(node, "RotaryEmbedding", [x, positions, cos, sin], attributes, MICROSOFT)


def _rms_norm(node: ir.Node) -> None:
    attributes = {"epsilon": node.attributes["epsilon"].as_float(), "axis": -1, "stash_type": 1}
    replace(node, "SimplifiedLayerNormalization", list(node.inputs), attributes)


def _causal_conv(node: ir.Node) -> None:
    """Positions before channels, in the values and in the state alike."""
    x, weight, past, *bias = node.inputs
    inputs = [x, weight, bias[0] if bias else None, past]
    replace(node, "CausalConvWithState", inputs, {"channels_last": 1}, MICROSOFT)


def _gated_delta(node: ir.Node) -> None:
    """The same function: fewer heads of q and k than of v each serve several."""
    q, k, v, log_decay, beta, past = node.inputs
    attributes: dict[str, int | float | str] = {
        "update_rule": "gated_delta",
        "q_num_heads": node.attributes["key_heads"].as_int(),
        "kv_num_heads": node.attributes["heads"].as_int(),
        "scale": node.attributes["scale"].as_float(),
    }
    replace(node, "LinearAttention", [q, k, v, past, log_decay, beta], attributes, MICROSOFT)


LOWERINGS: dict[str, Callable[[ir.Node], None]] = {
    "CausalAttention": _causal_attention,
    "SharedAttention": _shared_attention,
    "Attention": _attention,
    "Rotary": _rotary,
    "RMSNorm": _rms_norm,
    "CausalConv": _causal_conv,
    "GatedDelta": _gated_delta,
}
