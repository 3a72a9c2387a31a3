"""Convolutions over single places are matrix products over channels: they become neutral Linears, so that their weights
have number formats like all others.

A tower of convolutions holds [N, C, H, W], a product multiplies the last axis: one Transpose goes before it and one
behind it. Between two products with nothing but activation functions in between (the two halves of an MLP) both go,
for there values are widest and moving them would cost as much as the product saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from edgevlm_export.graphs.edit import ROWS, Rows, insert_before, read_once, replace
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.transforms.edits import Edits

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
ACTIVATIONS = frozenset({"Elu", "Gelu", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Tanh"})
"""Functions of one number at a time."""


def to_linear(model: ir.Model, wanted: Callable[[str], bool], edits: Edits) -> None:
    """Replace the convolutions over single places of a simplified graph whose weights, by name, are `wanted`, and say
    in `edits` that these are read as matrices."""
    found = [node for node in model.graph if _is_pointwise(node) and wanted(str(_weight(node).name))]
    for weight in dict.fromkeys(_weight(node) for node in found):
        assert weight.name is not None
        assert weight.shape is not None
        edits.matrices.add(weight.name)
        weight.shape = ir.Shape(weight.shape[:2])
    for layer in [_as_linear(node) for node in found]:
        _join(layer)
    if found:
        model.opset_imports[DOMAIN] = 1


def _weight(node: ir.Node) -> ir.Value:
    weight = node.inputs[1]
    assert weight is not None
    return weight


def _is_pointwise(node: ir.Node) -> bool:
    """Whether a node multiplies each place of [N, C, H, W] by the same matrix, a weight of the checkpoint that nothing
    else reads."""
    return _is_plain(node) and all(_is_plain(user) for user in _weight(node).consumers())


def _is_plain(node: ir.Node) -> bool:
    if (node.domain, node.op_type) != ("", "Conv"):
        return False
    weight, attributes = _weight(node), node.attributes
    of_checkpoint = weight.is_initializer() and weight.const_value is None
    if not of_checkpoint or weight.shape is None or tuple(weight.shape[2:]) != (1, 1):
        return False
    steps, padding = (attributes[name].as_ints() if name in attributes else () for name in ("strides", "pads"))
    groups = attributes["group"].as_int() if "group" in attributes else 1
    return groups == 1 and set(steps) <= {1} and not any(padding)


def _as_linear(node: ir.Node) -> ir.Node:
    """The Linear that has taken a convolution's place, between two Transposes."""
    x, weight, *bias = node.inputs
    assert x is not None
    moved = insert_before(node, "Transpose", [x], {"perm": CHANNELS_LAST})
    product = insert_before(node, "Linear", [moved, weight, *bias], {}, DOMAIN)
    for value, same in ((moved, x), (product, node.outputs[0])):
        value.type, value.shape = same.type, _channels_last(same.shape)
    if (source := x.producer()) is not None and source.op_type == "BatchNormalization":
        moved.meta[ROWS] = Rows.MIXED  # it has made channels alike
    replace(node, "Transpose", [product], {"perm": CHANNELS_FIRST})
    layer = product.producer()
    assert layer is not None
    return layer


def _join(layer: ir.Node) -> None:
    """Take away the Transposes between a Linear and the one before it, where there are only activations."""
    last = layer.inputs[0].producer()  # type: ignore[union-attr]
    assert last is not None
    between = list(_activations(last))
    first = (between[-1] if between else last).inputs[0].producer()  # type: ignore[union-attr]
    if first is None or not _undoes(first, last) or not read_once(first.outputs[0]):
        return
    for node in between:
        node.outputs[0].shape = _channels_last(node.outputs[0].shape)
    (between[-1] if between else last).replace_input_with(0, first.inputs[0])
    layer.replace_input_with(0, last.inputs[0])
    for node in (last, first):
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _activations(node: ir.Node) -> Iterator[ir.Node]:
    """Those before a node, upwards, whose values go nowhere else."""
    while (value := node.inputs[0]) is not None and read_once(value):
        producer = value.producer()
        if producer is None or producer.domain or producer.op_type not in ACTIVATIONS:
            return
        yield producer
        node = producer


def _undoes(first: ir.Node, last: ir.Node) -> bool:
    """Whether two nodes are the Transposes that `_as_linear` puts behind one product and before another."""
    perms = [node.attributes["perm"].as_ints() if node.op_type == "Transpose" else () for node in (first, last)]
    return list(map(list, perms)) == [CHANNELS_FIRST, CHANNELS_LAST]


def _channels_last(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape([shape[axis] for axis in CHANNELS_LAST])
