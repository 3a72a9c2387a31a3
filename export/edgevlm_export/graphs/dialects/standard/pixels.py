"""uint8 pixels become float32 at the graph's entry: TensorRT lays out and reshapes every type but uint8."""

from __future__ import annotations

import onnx_ir as ir


def widen(model: ir.Model) -> None:
    """Cast uint8 inputs before anything else sees them; the casts further on are then no longer needed."""
    for value in model.graph.inputs:
        if value.dtype != ir.DataType.UINT8:
            continue
        cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})
        model.graph.insert_before(model.graph[0], cast)
        wide = cast.outputs[0]
        wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        for node, index in list(value.uses()):
            if node is not cast:
                node.replace_input_with(index, wide)
        _retype(wide)


def _retype(value: ir.Value) -> None:
    """What was uint8 behind `value` is float32 now; a Cast to float32 hands its input on."""
    for node in [node for node, _ in value.uses()]:
        output = node.outputs[0]
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            output.replace_all_uses_with(value)
        elif output.dtype == ir.DataType.UINT8:
            output.type = ir.TensorType(ir.DataType.FLOAT)
            _retype(output)
