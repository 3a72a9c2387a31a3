"""`torch.split` without sequences: engines take Split, and no values that are lists of tensors."""

from __future__ import annotations

import onnx_ir as ir


class SplitSequencePass(ir.passes.InPlacePass):
    """SplitToSequence whose every part is taken by a constant index becomes Split."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See `ir.passes.PassBase.call`."""
        changed = False
        for node in list(model.graph):
            if node.op_type == "SplitToSequence":
                changed |= _replace(model.graph, node)
        return ir.passes.PassResult(model, changed)


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    """Whether it could be done: sizes and indices are constants, and a part keeps its axis."""
    users = [user for user, _ in node.outputs[0].uses()]
    sizes = _constant(node)
    taken = [_constant(user) for user in users if user.op_type == "SequenceAt"]
    indices = [int(index.numpy()) for index in taken if index is not None]
    if sizes is None or sizes.shape.rank() != 1 or len(indices) != len(users):
        return False
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    parts = int(sizes.numpy().size)
    split = ir.node("Split", node.inputs, attributes={"axis": axis}, num_outputs=parts)
    graph.insert_before(node, split)
    for user, index in zip(users, indices, strict=True):
        part, old = split.outputs[index % parts], user.outputs[0]
        part.type, part.shape = old.type, old.shape
        old.replace_all_uses_with(part)
        graph.remove(user, safe=True)
    graph.remove(node, safe=True)
    return True


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    """The second input, where it is one and a constant."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return None if value is None else ir.convenience.get_const_tensor(value)
