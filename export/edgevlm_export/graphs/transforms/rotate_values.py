"""Rotates the values of each attention head, so that the output projection reads even activations (also QuaRot).

Attention is linear in its values: v_proj gives each head v H, o_proj takes W H. Nothing is added to the graph. Where
one layer makes queries, keys and values (Phi-3), only its rows for the values change. A graph that only fills the cache
must rotate as the decoder that reads it does: in its last layer the values alone.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from edgevlm_export.graphs.edit import weight_name
from edgevlm_export.graphs.transforms.edits import Edit, Edits, NotApplicable, Read
from edgevlm_export.graphs.transforms.orthogonal import Orthogonal
from edgevlm_export.graphs.transforms.residual import is_op


@dataclass(frozen=True, slots=True)
class Projections:
    """What makes the values of one attention, and what reads its result."""

    value: ir.Node
    rows: slice
    """Of the layer's weight that make values: all of them, unless queries and keys come out of the same layer."""
    output: ir.Node | None
    """None in the last layer of a graph that fills the cache and gives no logits: nothing reads its result."""
    head_dim: int


def transform(model: ir.Model, kept: AbstractSet[str], edits: Edits) -> None:
    """See `Transform`."""
    if any(is_op(node, "SharedAttention") for node in model.graph):
        raise NotApplicable("layers read the values of other layers")
    found = [_projections(node) for node in model.graph if is_op(node, "CausalAttention")]
    for one in found:
        rotation = Orthogonal(one.head_dim)
        edits.add(weight_name(one.value), _writing(rotation, one.rows))
        if len(one.value.inputs) > 2:
            edits.add(str(one.value.inputs[2].name), _biasing(rotation, one.rows))  # type: ignore[union-attr]
        if one.output is not None:
            edits.add(weight_name(one.output), _reading(rotation))
    if not found:
        raise NotApplicable("the graph has no attention with a cache")


def _projections(attention: ir.Node) -> Projections:
    """v_proj, or its part of a packed projection, and o_proj. Raises `NotApplicable` where anything lies between."""
    past, result = attention.inputs[3], attention.outputs[0]
    readers = result.consumers()
    unread = not readers and not result.is_graph_output()
    if not unread and (len(readers) != 1 or not is_op(readers[0], "Linear")):
        raise NotApplicable("attention's result is not read by one linear layer")
    value, rows = _source(attention.inputs[2])
    assert past is not None
    assert past.shape is not None
    return Projections(value, rows, readers[0] if readers else None, int(str(past.shape[-1])))


def _source(values: ir.Value | None) -> tuple[ir.Node, slice]:
    """The linear layer that makes `values`, and its rows that do."""
    producer = None if values is None else values.producer()
    if values is None or producer is None or len(values.consumers()) != 1:
        raise NotApplicable("attention's values are used elsewhere too")
    if is_op(producer, "Linear"):
        return producer, slice(None)
    packed = None if producer.op_type != "Slice" or producer.inputs[0] is None else producer.inputs[0].producer()
    rows = None if packed is None or not is_op(packed, "Linear") else _rows(producer)
    if packed is None or rows is None:
        raise NotApplicable(f"attention's values come out of {producer.op_type}, not of a linear layer")
    return packed, rows


def _rows(node: ir.Node) -> slice | None:
    """The range that a Slice takes of the last axis, where it is known."""
    source, *given = node.inputs
    found = [None if value is None else ir.convenience.get_const_tensor(value) for value in given]
    if source is None or source.shape is None or len(found) != 4 or any(tensor is None for tensor in found):
        return None
    start, stop, axis, step = (int(tensor.numpy().item()) for tensor in found if tensor is not None)
    return slice(start, stop) if axis in (-1, len(source.shape) - 1) and step == 1 else None


def _reading(rotation: Orthogonal) -> Edit:
    """Heads lie along the last axis."""

    def edit(weight: Tensor, _: object) -> Tensor:
        return rotation.apply(weight.unflatten(-1, (-1, rotation.width))).flatten(-2)

    return edit


def _writing(rotation: Orthogonal, rows: slice) -> Edit:
    """Heads lie along the first axis."""

    def edit(weight: Tensor, _: object) -> Tensor:
        changed = weight.clone()
        heads = weight[rows].t().unflatten(-1, (-1, rotation.width))
        changed[rows] = rotation.apply(heads).flatten(-2).t()
        return changed

    return edit


def _biasing(rotation: Orthogonal, rows: slice) -> Edit:
    def edit(bias: Tensor, read: Read) -> Tensor:
        changed = bias.clone()
        changed[rows] = _reading(rotation)(bias[rows], read)
        return changed

    return edit
