"""ONNX's Attention over heads laid out [B, heads, S, dim]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import constant_before, insert_before, supersede


def split_heads(node: ir.Node, x: ir.Value | None, heads: int) -> ir.Value:
    """[B, S, heads*dim] to [B, heads, S, dim], before `node`."""
    shape = constant_before(node, np.array([0, 0, heads, -1], np.int64))
    return insert_before(node, "Transpose", [insert_before(node, "Reshape", [x, shape], {})], {"perm": [0, 2, 1, 3]})


def merge_heads(node: ir.Node, x: ir.Value) -> ir.Value:
    """[B, heads, S, dim] to [B, S, heads*dim], before `node`."""
    rows = insert_before(node, "Transpose", [x], {"perm": [0, 2, 1, 3]})
    return insert_before(node, "Reshape", [rows, constant_before(node, np.array([0, 0, -1], np.int64))], {})


def attention(node: ir.Node) -> None:
    """`valid` [B, S] bool says which keys count, for every head and query alike."""
    q, k, v, *valid = node.inputs
    heads = node.attributes["num_heads"].as_int()
    inputs = [split_heads(node, x, heads) for x in (q, k, v)]
    if valid:
        inputs.append(_mask(node, valid[0]))
    y = insert_before(node, "Attention", inputs, {"scale": node.attributes["scale"].as_float()})
    supersede(node, [merge_heads(node, y)])


def _mask(node: ir.Node, valid: ir.Value | None) -> ir.Value:
    """bool [B, 1, S, S]. The operator broadcasts no queries, so a column of ones, made without shapes, does it."""
    keys, rows = (
        insert_before(node, "Unsqueeze", [valid, constant_before(node, np.array(axes, np.int64))], {})
        for axes in ([1, 2], [1, 3])
    )
    ones = insert_before(node, "Or", [rows, insert_before(node, "Not", [rows], {})], {})
    return insert_before(node, "And", [keys, ones], {})
