"""Transposes that undo each other and Reshapes that lead back to where they began are removed."""

from __future__ import annotations

import onnx_ir as ir


class CancelLayoutPass(ir.passes.InPlacePass):
    """Remove inverse pairs of Transpose, fold chains of Reshape, and drop Reshapes that keep the shape.

    Precondition: `StaticReshapePass` has run, so that a folded Reshape's target is a constant.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        changed = True
        while changed:
            changed = False
            for node in list(model.graph):
                changed |= _cancel_transposes(node) or _fold_reshape(node)
            _remove_dead(model)
            modified |= changed
        return ir.passes.PassResult(model, modified)


def _cancel_transposes(node: ir.Node) -> bool:
    """Transpose(Transpose(x, p), q) with q after p the identity: x."""
    first = _producer(node, "Transpose")
    if first is None or not node.outputs[0].uses():
        return False
    inner, outer = first.attributes["perm"].as_ints(), node.attributes["perm"].as_ints()
    source = first.inputs[0]
    if source is None or [inner[axis] for axis in outer] != list(range(len(outer))):
        return False
    return _bypass(node, source)


def _fold_reshape(node: ir.Node) -> bool:
    """Reshape(Reshape(x)) reads x directly; Reshape to x's own shape is x."""
    if node.op_type != "Reshape" or not node.outputs[0].uses():
        return False
    source = node.inputs[0]
    if source is None:
        return False
    if same_shape(source.shape, node.outputs[0].shape):
        return _bypass(node, source)
    first = _producer(node, "Reshape")
    if first is None or not _constant_target(node):
        return False
    node.replace_input_with(0, first.inputs[0])
    return True


def _constant_target(node: ir.Node) -> bool:
    target = node.inputs[1]
    producer = None if target is None else target.producer()
    return producer is not None and producer.op_type == "Constant"


def _producer(node: ir.Node, op_type: str) -> ir.Node | None:
    """The node before, when both are `op_type`."""
    if node.op_type != op_type or node.inputs[0] is None:
        return None
    producer = node.inputs[0].producer()
    return producer if producer is not None and producer.op_type == op_type else None


def _bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let the node's users read `source`; graph outputs keep their producer."""
    if node.outputs[0].is_graph_output():
        return False
    node.outputs[0].replace_all_uses_with(source)
    return True


def _remove_dead(model: ir.Model) -> None:
    for node in reversed(list(model.graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            model.graph.remove(node, safe=True)


def same_shape(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Both known, equal, and no dimension anonymous."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(left == right and not _anonymous(left) for left, right in zip(a, b, strict=True))


def _anonymous(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, ir.SymbolicDim) and dim.value is None
