"""Simplified graphs compute what they did: Split in place of sequences, Reshapes and Transposes that lead nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.shape_inference import infer_shapes

from edgevlm_export.graphs import passes
from edgevlm_runtime.engines.ort_library import ort


def traced(width: int | str, sizes: NDArray[np.int64], indices: Sequence[int]) -> ir.Model:
    """What the exporter makes of `torch.split(x, sizes, -1)` with some parts taken, each summed up."""
    split = helper.make_tensor("s", TensorProto.INT64, sizes.shape, sizes.reshape(-1))
    constants = [helper.make_node("Constant", [], ["sizes"], value=split)]
    nodes = [helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=-1)]
    for number, index in enumerate(indices):
        constants.append(helper.make_node("Constant", [], [f"i{number}"], value_int=index))
        nodes.append(helper.make_node("SequenceAt", ["parts", f"i{number}"], [f"part{number}"]))
        nodes.append(helper.make_node("ReduceSum", [f"part{number}"], [f"y{number}"]))
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [1, 1]) for n in range(len(indices))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, width])]
    graph = helper.make_graph([*constants, *nodes], "split", inputs, outputs)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10))


def run(model: ir.Model, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[NDArray[np.float32]] = session.run(None, {"x": x})
    return results


@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_same_values_without_sequences(data: st.DataObject, parts: list[int]) -> None:
    """By the size of every part, or by one for all of them, the last part smaller."""
    width = sum(parts)
    one = data.draw(st.none() | st.integers(1, width))
    count = len(parts) if one is None else -(-width // one)
    indices = data.draw(st.lists(st.integers(-count, count - 1), min_size=1, max_size=4))
    model = traced(width, np.array(parts if one is None else one, np.int64), indices)
    x = np.random.default_rng(0).standard_normal((4, width)).astype(np.float32)
    expected = run(model, x)
    passes.simplify(model)
    assert not {node.op_type for node in model.graph} & {"SplitToSequence", "SequenceAt"}
    assert all(np.array_equal(found, wanted) for found, wanted in zip(run(model, x), expected, strict=True))


@pytest.mark.parametrize(("width", "sizes", "index"), [("width", 2, 0), (6, [2, 3, 1], 3), (6, 4, 2)])
def test_what_is_not_known_is_left_alone(width: int | str, sizes: object, index: int) -> None:
    """One size of an unknown width, and a part that is not there."""
    model = traced(width, np.array(sizes, np.int64), (index,))
    passes.simplify(model)
    assert "SequenceAt" in {node.op_type for node in model.graph}


SHAPES = ([-1, 24], [-1, 4, 6], [-1, 2, 12], [-1, 2, 3, 4])


def moved(steps: Sequence[list[int] | None]) -> ir.Model:
    """Reshapes to these shapes, their targets computed, in between (None) Transposes that turn the last two axes."""
    nodes, last, axes = [helper.make_node("Identity", ["x"], ["v0"])], "v0", 2
    for number, shape in enumerate(steps, 1):
        if shape is None:
            perm = [*range(axes - 2), axes - 1, axes - 2]
            nodes.append(helper.make_node("Transpose", [last], [f"v{number}"], perm=perm))
        else:
            axes = len(shape)
            nodes.append(helper.make_node("Shape", ["x"], [f"s{number}"], start=0, end=1))
            nodes.append(helper.make_node("Constant", [], [f"c{number}"], value_ints=shape[1:]))
            nodes.append(helper.make_node("Concat", [f"s{number}", f"c{number}"], [f"t{number}"], axis=0))
            nodes.append(helper.make_node("Reshape", [last, f"t{number}"], [f"v{number}"]))
        last = f"v{number}"
    nodes.append(helper.make_node("Neg", [last], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * axes)
    graph = helper.make_graph(nodes, "moves", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return ir.from_proto(infer_shapes(model, data_prop=True))


@given(st.lists(st.sampled_from([*SHAPES, None]), max_size=7), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_moves_that_cancel_out_are_gone(steps: list[list[int] | None], rows: int) -> None:
    """And the values are what they were, for any number of rows."""
    model = moved(steps)
    x = np.random.default_rng(0).standard_normal((rows, 24)).astype(np.float32)
    expected = run(model, x)
    before = Counter(node.op_type for node in model.graph)
    passes.simplify(model)
    after = Counter(node.op_type for node in model.graph)
    assert np.array_equal(run(model, x)[0], expected[0])
    assert not after & Counter(("Shape", "Concat", "Identity"))
    assert after <= before
    if None not in steps:
        assert after["Reshape"] == bool(steps and steps[-1] != SHAPES[0])
