"""Finds the residual stream of a decoder in its neutral graph: what reads it, what adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.transforms.edits import NotApplicable


@dataclass(frozen=True, slots=True)
class NormScale:
    """Where the weight of a norm comes from: the parameter plus a constant (Gemma stores the difference from one)."""

    weight: str
    offset: float


@dataclass(frozen=True, slots=True)
class Norm:
    """One RMSNorm on the stream and the linear layers that read its result."""

    node: ir.Node
    scale: NormScale
    readers: tuple[ir.Node, ...]


@dataclass(frozen=True, slots=True)
class ResidualStream:
    """Everything that touches the stream."""

    entries: tuple[ir.Value, ...]
    """Inputs of the graph, [1, S, width] each: inputs_embeds, then what is added to the stream further on."""
    width: int
    norms: tuple[Norm, ...]
    """In order; only the last one's reader is the head, by way of the selection of rows."""
    writers: tuple[ir.Node, ...]
    """Linear layers whose results are added."""


def is_op(node: ir.Node | None, op_type: str) -> bool:
    """Whether this is a neutral operator of that type."""
    return node is not None and (node.domain, node.op_type) == (DOMAIN, op_type)


def find_residual(model: ir.Model) -> ResidualStream:
    """The stream. Raises `NotApplicable` when anything touches it that is no RMSNorm, linear layer or addition."""
    entry = model.graph.inputs[0]
    width = _width(entry)
    stream, entries = [entry], [entry]
    norms: list[Norm] = []
    writers: list[ir.Node] = []
    for value in stream:  # grows while additions are found
        for node in value.consumers():
            if is_op(node, "RMSNorm"):
                norms.append(_norm(node))
            elif node.op_type == "Add":
                if (added := _added_input(node, value, width)) is not None:
                    entries.append(added)
                else:
                    writers.append(_writer(node, value))
                stream.append(node.outputs[0])
            else:
                raise NotApplicable(f"{node.op_type} reads the residual stream")
        if value.is_graph_output():
            raise NotApplicable("the residual stream is an output of the graph")
    return ResidualStream(tuple(entries), width, tuple(norms), tuple(writers))


def _width(value: ir.Value) -> int:
    if value.shape is None or not isinstance(value.shape[-1], int):
        raise NotApplicable("the width of the residual stream is not known")
    return value.shape[-1]


def _added_input(addition: ir.Node, stream: ir.Value, width: int) -> ir.Value | None:
    """The graph's input on the other side of an addition, as wide as the stream and used nowhere else, if that is what
    is there."""
    for value in addition.inputs:
        if value is not None and value is not stream and value.is_graph_input():
            return value if len(list(value.uses())) == 1 and _width(value) == width else None
    return None


def _writer(addition: ir.Node, stream: ir.Value) -> ir.Node:
    """The linear layer on the other side of an addition, its result used nowhere else."""
    other = [value for value in addition.inputs if value is not stream]
    producer = other[0].producer() if len(other) == 1 and other[0] is not None else None
    if producer is None or not is_op(producer, "Linear") or len(producer.outputs[0].consumers()) != 1:
        odd = "an input of the graph, of another width or used elsewhere too,"
        what = odd if producer is None else f"the result of {producer.op_type}"
        raise NotApplicable(f"{what} is added to the residual stream, not a linear layer's alone")
    return producer


def _norm(node: ir.Node) -> Norm:
    scale = _scale(node.inputs[1])
    readers: list[ir.Node] = []
    for user in node.outputs[0].consumers():
        selected = user.outputs[0].consumers() if user.op_type == "Gather" else (user,)
        readers.extend(selected)
    other = next((reader.op_type for reader in readers if not is_op(reader, "Linear")), None)
    if scale is None or node.outputs[0].is_graph_output() or other is not None:
        raise NotApplicable(f"a norm of the residual stream is read by {other or 'what is unknown'}")
    return Norm(node, scale, tuple(readers))


def _scale(value: ir.Value | None) -> NormScale | None:
    if value is None or value.name is None:
        return None
    if value.is_initializer():
        return NormScale(value.name, 0.0)
    producer = value.producer()
    if producer is None or producer.op_type != "Add":
        return None
    weights = [term for term in producer.inputs if term is not None and term.const_value is None]
    constants = [term.const_value for term in producer.inputs if term is not None and term.const_value is not None]
    if len(weights) != 1 or len(constants) != 1 or not weights[0].is_initializer():
        return None
    return NormScale(str(weights[0].name), float(constants[0].numpy()))
