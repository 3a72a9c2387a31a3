"""Constants that a trace computes from constants: where a Slice begins, which part of a list is taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class FoldIntegersPass(ir.passes.InPlacePass):
    """Cast and Reshape of constant integers become constants, which leaves what computed them unused."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See `ir.passes.PassBase.call`."""
        changed = False
        for node in list(model.graph):
            folded = _folded(node)
            if folded is None:
                continue
            constant = ir.node("Constant", [], attributes={"value": ir.tensor(folded)})
            value, old = constant.outputs[0], node.outputs[0]
            value.name, value.shape, value.dtype = f"{old.name}_folded", ir.Shape(folded.shape), ir.DataType.INT64
            model.graph.insert_before(node, constant)
            old.replace_all_uses_with(value)
            changed = True
        return ir.passes.PassResult(model, changed)


def _cast(node: ir.Node, values: Integers) -> Integers | None:
    return values if node.attributes["to"].as_int() == ir.DataType.INT64 else None


def _reshape(node: ir.Node, values: Integers) -> Integers | None:
    target = constant_integers(node.inputs[1])
    return None if target is None else values.reshape(tuple(target.tolist()))


FOLDS: dict[str, Callable[[ir.Node, Integers], Integers | None]] = {"Cast": _cast, "Reshape": _reshape}


def _folded(node: ir.Node) -> Integers | None:
    """The node's result, where it is known and nothing of the graph's outputs."""
    if node.domain != "" or node.op_type not in FOLDS or node.outputs[0].is_graph_output():
        return None
    values = constant_integers(node.inputs[0])
    return None if values is None else FOLDS[node.op_type](node, values)


def constant_integers(value: ir.Value | None) -> Integers | None:
    """The integers of a constant value; None for one that is computed, or that holds something else."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        return None
    numbers = tensor.numpy()
    return numbers.astype(np.int64) if np.issubdtype(numbers.dtype, np.integer) else None
