"""Products of one input as one product: q, k and v for GroupQueryAttention, which takes them packed.

The weights stay apart on disk. `Concat` joins them, and ONNX Runtime folds that away when the graph is loaded, before
it lays the weights out for its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import MICROSOFT, constant_before, insert_before, read_once

JOINED = {
    # operator: the axis along which each of its inputs after the first holds output channels
    "DynamicQuantizeMatMul": (1, 0, 0, 0),
    "MatMulNBits": (0, 0, 0, 0, 0),
}
BIAS = {"DynamicQuantizeMatMul": 4, "MatMulNBits": 5}
SCALES = 2
"""Which input holds the scales, whose first axis is the output channels in both."""
Q, K, V = 0, 1, 2


def fuse(model: ir.Model) -> None:
    """In place, wherever q, k and v of an attention are stored alike."""
    for node in list(model.graph):
        if node.op_type != "GroupQueryAttention" or any(node.inputs[place] is None for place in (Q, K, V)):
            continue
        products = [value.producer() for value in node.inputs[Q : V + 1] if value is not None]
        if _alike(products):
            _pack(node, [product for product in products if product is not None])


def _alike(products: Sequence[ir.Node | None]) -> bool:
    first = products[0]
    if first is None or first.op_type not in JOINED:
        return False
    return all(
        product is not None
        and product.op_type == first.op_type
        and product.inputs[0] is first.inputs[0]
        and _settings(product) == _settings(first)
        and _given(product) == _given(first)
        and read_once(product.outputs[0])
        for product in products
    )


def _settings(product: ir.Node) -> dict[str, object]:
    """Attributes, but for the number of output channels."""
    return {name: attribute.value for name, attribute in product.attributes.items() if name != "N"}


def _given(product: ir.Node) -> list[int]:
    """Which inputs there are, a bias aside: where only some have one, zeros stand in for the others'."""
    before = enumerate(product.inputs[: BIAS[product.op_type]])
    return [place for place, value in before if value is not None]


def _pack(attention: ir.Node, products: list[ir.Node]) -> None:
    first, kind = products[0], products[0].op_type
    inputs: list[ir.Value | None] = [first.inputs[0]]
    for place in range(1, max(len(product.inputs) for product in products)):
        parts = [product.inputs[place] if place < len(product.inputs) else None for product in products]
        if place == BIAS[kind] and any(part is not None for part in parts):
            parts = [part or _zeros(first, product) for part, product in zip(parts, products, strict=True)]
        joined = None
        if parts[0] is not None:
            joined = insert_before(first, "Concat", parts, {"axis": JOINED[kind][place - 1]})
        inputs.append(joined)
    attributes = {name: attribute.value for name, attribute in first.attributes.items()}
    if "N" in attributes:
        attributes["N"] = sum(product.attributes["N"].as_int() for product in products)
    packed = insert_before(first, kind, inputs, attributes, MICROSOFT)
    attention.replace_input_with(Q, packed)
    attention.replace_input_with(K, None)
    attention.replace_input_with(V, None)
    for product in products:
        assert product.graph is not None
        product.graph.remove(product, safe=True)


def _zeros(before: ir.Node, product: ir.Node) -> ir.Value:
    scales = product.inputs[SCALES]
    assert scales is not None
    assert scales.shape is not None
    return constant_before(before, np.zeros(scales.shape.numpy()[0], np.float32))
