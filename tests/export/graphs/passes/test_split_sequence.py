"""Split in place of sequences, against torch.split's own trace run as it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgevlm_export.graphs.passes import SplitSequencePass
from edgevlm_runtime.engines.ort_library import ort

SIZES = (2, 3, 1)


def traced(sizes: np.ndarray, indices: tuple[int, ...]) -> ir.Model:
    """What the exporter makes of `torch.split(x, sizes, -1)` with some parts taken and added up, last part first."""
    constants = [helper.make_node("Constant", [], ["sizes"], value=helper.make_tensor("s", 7, sizes.shape, sizes))]
    nodes = [helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=-1)]
    for number, index in enumerate(indices):
        constants.append(helper.make_node("Constant", [], [f"i{number}"], value_int=index))
        nodes.append(helper.make_node("SequenceAt", ["parts", f"i{number}"], [f"part{number}"]))
        nodes.append(helper.make_node("ReduceSum", [f"part{number}"], [f"y{number}"]))
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [1, 1]) for n in range(len(indices))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, sum(SIZES)])]
    graph = helper.make_graph([*constants, *nodes], "split", inputs, outputs)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10))


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def test_same_values_without_sequences():
    model = traced(np.array(SIZES), (2, 0, -2))
    x = np.random.default_rng(0).standard_normal((4, sum(SIZES))).astype(np.float32)
    expected = run(model, x)
    assert SplitSequencePass()(model).modified
    assert not {node.op_type for node in model.graph} & {"SplitToSequence", "SequenceAt"}
    assert all(np.array_equal(found, wanted) for found, wanted in zip(run(model, x), expected, strict=True))


@pytest.mark.parametrize("sizes", [np.array(2)])
def test_parts_of_one_size_are_left_alone(sizes):
    """A single size says nothing about how many parts there are."""
    model = traced(sizes, (0,))
    assert not SplitSequencePass()(model).modified
    assert "SplitToSequence" in {node.op_type for node in model.graph}
