"""Reshape targets become constants, which leaves the arithmetic that computed them unused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


class StaticReshapePass(ir.passes.InPlacePass):
    """Replace a Reshape's computed target by a constant when the result has at most one dynamic dimension.

    The dynamic one becomes -1. Expand targets are left alone: they may grow a dimension.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type != "Reshape" or node.domain != "":
                continue
            target = static_target(node.outputs[0].shape)
            if target is None:
                continue
            constant = ir.node("Constant", [], attributes={"value": ir.tensor(np.array(target, dtype=np.int64))})
            constant.outputs[0].name = f"{node.outputs[0].name}_target"
            constant.outputs[0].shape = ir.Shape([len(target)])
            constant.outputs[0].dtype = ir.DataType.INT64
            model.graph.insert_before(node, constant)
            node.replace_input_with(1, constant.outputs[0])
            node.attributes.pop("allowzero", None)
            modified = True
        return ir.passes.PassResult(model, modified)


def static_target(shape: ir.Shape | None) -> list[int] | None:
    """The constant Reshape target for this result shape, or None when two dimensions are dynamic or one is 0."""
    if shape is None:
        return None
    target = [dim if isinstance(dim, int) else -1 for dim in shape]
    return None if target.count(-1) > 1 or 0 in target else target
