"""Small moves on an onnx_ir graph that dialects and formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
Attributes = Mapping[str, int | float | str | Sequence[int]]


class Rows(Enum):
    """What is known of a value's rows, for those who quantize them."""

    ANY = "any"
    """Nothing: one channel of a row may be much larger than the others."""
    MIXED = "mixed"
    """No channel stands out, rows differ in magnitude: after division by their root mean square one scale serves."""
    EVEN = "even"
    """All rows have one magnitude as well, so that one scale serves them as they are."""


ROWS = "edgevlm.rows"
"""Marks a value with what is known of its rows (`Rows`)."""
PRODUCT = "edgevlm.product"
"""Marks a value that is the product of a gated MLP, whatever was done to it since."""


SOFT_CAP = frozenset({"Div", "Tanh", "Mul"})
"""Operators of a soft cap: a division by the cap, a hyperbolic tangent, a multiplication."""


def rows_of(value: ir.Value | None) -> Rows:
    """What is known of the rows of a value."""
    found: Rows = Rows.ANY if value is None else value.meta.get(ROWS, Rows.ANY)
    return found


def take_over(new: ir.Value, old: ir.Value) -> None:
    """`new` gets the old value's name, type, shape, marks and users, its place among the graph's outputs included."""
    new.name, new.type, new.shape = old.name, old.type, old.shape
    new.meta.update(old.meta)
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


def supersede(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """These values, made before `node`, take over its outputs one by one; the node goes."""
    for new, old in zip(values, node.outputs, strict=True):
        take_over(new, old)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def weight_name(layer: ir.Node) -> str:
    """Parameter name of a neutral Linear's weight."""
    return str(layer.inputs[1].name)  # type: ignore[union-attr]


def read_once(value: ir.Value) -> bool:
    """Whether one input of one node reads it, and it is no output of the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def gives_logits(layer: ir.Node) -> bool:
    """Whether a layer's result is an output of its graph, as it is or within a soft cap."""
    value = layer.outputs[0]
    while not value.is_graph_output():
        users = value.consumers()
        if len(users) != 1 or users[0].op_type not in SOFT_CAP:
            return False
        value = users[0].outputs[0]
    return True


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
