"""`torch.split` without sequences: engines take Split, and no values that are lists of tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.passes.fold_integers import Integers, constant_integers


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
    """Whether it could be done: sizes and indices are known, and a part keeps its axis."""
    users = [user for user, _ in node.outputs[0].uses()]
    taken = [constant_integers(user.inputs[1]) for user in users if user.op_type == "SequenceAt"]
    indices = [int(index) for index in taken if index is not None]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    sizes = _sizes(node, axis)
    if sizes is None or len(indices) != len(users) or not all(-len(sizes) <= index < len(sizes) for index in indices):
        return False
    constant = ir.node("Constant", [], attributes={"value": ir.tensor(sizes)})
    split = ir.node("Split", [node.inputs[0], constant.outputs[0]], attributes={"axis": axis}, num_outputs=len(sizes))
    graph.insert_before(node, [constant, split])
    for user, index in zip(users, indices, strict=True):
        part, old = split.outputs[index], user.outputs[0]
        part.type, part.shape = old.type, old.shape
        old.replace_all_uses_with(part)
        graph.remove(user, safe=True)
    graph.remove(node, safe=True)
    return True


def _sizes(node: ir.Node, axis: int) -> Integers | None:
    """Of every part. One number is the size of all of them but the last, which takes what is left."""
    sizes = constant_integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None or sizes.ndim == 1:
        return sizes
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    width = None if shape is None else shape[axis]
    if not isinstance(width, int) or int(sizes) < 1:
        return None
    return np.diff(np.append(np.arange(0, width, int(sizes)), width)).astype(np.int64)
