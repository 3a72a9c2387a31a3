"""The biases of q, k and v into MultiHeadAttention, which adds them while it brings the heads together."""

from __future__ import annotations

import onnx_ir as ir

from edgevlm_export.graphs.edit import insert_before, read_once

BIAS = 3
"""Which input of MultiHeadAttention is the bias of q, k and v, one after another."""


def fuse(model: ir.Model) -> None:
    """In place, where q, k and v each are a sum with a bias that nothing else reads."""
    for node in list(model.graph):
        if node.op_type != "MultiHeadAttention":
            continue
        additions = [_bias_addition(value) for value in node.inputs[:BIAS]]
        if len(node.inputs) > BIAS and node.inputs[BIAS] is not None:
            continue
        if all(addition is not None for addition in additions):
            _fuse(node, [addition for addition in additions if addition is not None])


def _bias_addition(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Add" or not read_once(node.outputs[0]):
        return None
    bias = node.inputs[1]
    fits = bias is not None and bias.is_initializer() and bias.shape is not None and len(bias.shape) == 1
    return node if fits else None


def _fuse(node: ir.Node, additions: list[ir.Node]) -> None:
    biases = insert_before(node, "Concat", [addition.inputs[1] for addition in additions], {"axis": 0})
    node.resize_inputs(max(len(node.inputs), BIAS + 1))
    for place, addition in enumerate(additions):
        node.replace_input_with(place, addition.inputs[0])
    node.replace_input_with(BIAS, biases)
    for addition in additions:
        assert addition.graph is not None
        addition.graph.remove(addition, safe=True)
