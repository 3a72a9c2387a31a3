"""Small moves on an onnx_ir graph that dialects and holders share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
Attributes = Mapping[str, int | float]


def take_over(new: ir.Value, old: ir.Value) -> None:
    """`new` gets the old value's name, type, shape and users, its place among the graph's outputs included."""
    new.name, new.type, new.shape = old.name, old.type, old.shape
    if old.is_graph_output():
        outputs = old.graph.outputs  # type: ignore[union-attr]
        outputs[list(outputs).index(old)] = new
    old.replace_all_uses_with(new)


def replace(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Attributes, domain: str = ""
) -> ir.Node:
    """Put another operator in `node`'s place; it takes over every output."""
    graph = node.graph
    assert graph is not None
    new = ir.node(op_type, inputs, attributes=dict(attributes), domain=domain, num_outputs=len(node.outputs))
    graph.insert_before(node, new)
    for old_value, new_value in zip(node.outputs, new.outputs, strict=True):
        take_over(new_value, old_value)
    graph.remove(node, safe=True)
    return new


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Attributes, domain: str = ""
) -> ir.Value:
    """Add a one-output operator before a node and return its output."""
    graph = node.graph
    assert graph is not None
    new = ir.node(op_type, inputs, attributes=dict(attributes), domain=domain)
    graph.insert_before(node, new)
    return new.outputs[0]


def constant_before(node: ir.Node, array: NDArray[np.generic]) -> ir.Value:
    """Add a constant before a node and return its value."""
    graph = node.graph
    assert graph is not None
    new = ir.node("Constant", [], attributes={"value": ir.tensor(array)})
    graph.insert_before(node, new)
    return new.outputs[0]


def declare_initializer(model: ir.Model, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
    """Add an initializer whose value is streamed in later."""
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(list(shape)))
    model.graph.initializers[name] = value
    return value
