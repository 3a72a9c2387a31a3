"""Operators that need nothing but ONNX's own, each by itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import Attributes, constant_before, insert_before, replace, supersede


def rotary(node: ir.Node) -> None:
    """x [1, S, heads*dim]; cos and sin hold one row for each of the S positions: [S, dim/2] becomes [1, S, dim/2]."""
    x, cos, sin = node.inputs
    batch = constant_before(node, np.array([0], np.int64))
    tables = [insert_before(node, "Unsqueeze", [table, batch], {}) for table in (cos, sin)]
    replace(node, "RotaryEmbedding", [x, *tables], {"num_heads": node.attributes["num_heads"].as_int()})


def rms_norm(node: ir.Node) -> None:
    """Computed in float32 whatever the activations are (stash_type 1)."""
    attributes = {"epsilon": node.attributes["epsilon"].as_float(), "axis": -1, "stash_type": 1}
    replace(node, "RMSNormalization", list(node.inputs), attributes)


def causal_conv(node: ir.Node) -> None:
    """The state before the new rows, convolved without padding; the last K-1 of them are the next state."""
    x, weight, past, *bias = node.inputs
    assert weight is not None
    assert weight.shape is not None
    channels, kernel = int(weight.shape[0]), int(weight.shape[2])  # type: ignore[arg-type]
    rows = insert_before(node, "Concat", [past, x], {"axis": 1})
    by_channel = insert_before(node, "Transpose", [rows], {"perm": [0, 2, 1]})
    attributes: Attributes = {"group": channels, "kernel_shape": [kernel]}
    convolved = insert_before(node, "Conv", [by_channel, weight, *bias], attributes)
    y = insert_before(node, "Transpose", [convolved], {"perm": [0, 2, 1]})
    bounds = [constant_before(node, np.array([n], np.int64)) for n in (1 - kernel, np.iinfo(np.int64).max, 1)]
    supersede(node, [y, insert_before(node, "Slice", [rows, *bounds], {})])
