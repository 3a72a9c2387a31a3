"""x @ weight.T (+ bias) in standard operators; engines fold the transpose into the product."""

from __future__ import annotations

import onnx_ir as ir

from edgevlm_export.graphs.edit import insert_before, replace


def product(node: ir.Node, x: ir.Value | None, weight: ir.Value) -> None:
    """In place of a Linear `node`. weight: [out, in]."""
    bias = node.inputs[2:]
    turned = insert_before(node, "Transpose", [weight], {"perm": [1, 0]})
    if not bias:
        replace(node, "MatMul", [x, turned], {})
        return
    replace(node, "Add", [insert_before(node, "MatMul", [x, turned], {}), bias[0]], {})
