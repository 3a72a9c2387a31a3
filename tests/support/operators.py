"""One operator as a graph: a linear layer, to run what a format makes of it, or what a dialect lowers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import helper

from edgevlm_export.graphs import passes
from edgevlm_export.graphs.dialects.standard import OPSET
from edgevlm_export.graphs.edit import MICROSOFT, ROWS, Rows
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.planning.graph_plan import CONVERSIONS
from edgevlm_export.precision.base import Format, WeightJob
from edgevlm_runtime.engines.ort_library import ort

Run = Callable[[np.ndarray], np.ndarray]


def linear_layer(
    fmt: Format,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activations: str = "float32",
    known: Rows = Rows.ANY,
) -> tuple[Run, WeightJob]:
    """y = x weight^T + bias as `format` lowers it: a function of x [1, S, in], and the format's job.

    `known`: of the rows of x.
    """
    rows, columns = weight.shape
    x = _value("x", [1, "S", columns])
    x.meta[ROWS] = known
    y_shape = ir.Shape([1, "S", rows])
    initializers = [_value("w", [rows, columns])]
    if bias is not None:
        initializers.append(ir.Value(name="b", const_value=ir.tensor(bias, name="b")))
        initializers[-1].dtype, initializers[-1].shape = ir.DataType.FLOAT, ir.Shape([rows])
    node = ir.node("Linear", [x, *initializers], domain=DOMAIN)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = "y", y_shape, ir.DataType.FLOAT
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=initializers, opset_imports={"": 23, MICROSOFT: 1})
    model = ir.Model(graph, ir_version=10)
    job = fmt.lower(model, node)
    made = job.make(torch.from_numpy(weight))
    CONVERSIONS[activations](model, (job,))
    for name, value in model.graph.initializers.items():
        if name in made:
            value.const_value = _constant(value, made[name])
    passes.finish(model)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), _quiet(), providers=["CPUExecutionProvider"])
    return lambda array: session.run(None, {"x": array})[0], job


def _constant(value: ir.Value, tensor: torch.Tensor) -> ir.TensorProtocol:
    """What the exporter would write: the tensor's bytes under the type and shape that the graph declares."""
    if value.dtype == ir.DataType.FLOAT16 and tensor.is_floating_point():
        tensor = tensor.half()
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    assert len(data) * 8 == np.prod(value.shape.numpy()) * value.dtype.bitwidth
    return ir.from_proto(helper.make_tensor(value.name, value.dtype, value.shape.numpy(), data, raw=True))


def run_decoder(path: Path, embeddings: np.ndarray, kv_heads: int, head_dim: int) -> np.ndarray:
    """Logits [S, vocab] of every position of `embeddings` [1, S, hidden]."""
    session = ort.InferenceSession(str(path), _quiet(), providers=["CPUExecutionProvider"])
    length = embeddings.shape[1]
    feeds = {
        "inputs_embeds": embeddings,
        "logits_rows": np.arange(length),
        "seqlens_k": np.array([length - 1], np.int32),
        "total_sequence_length": np.array(length, np.int32),
    }
    cache = np.zeros((1, kv_heads, length, head_dim), np.float32)
    feeds |= {port.name: cache for port in session.get_inputs() if port.name.startswith("past_key_values.")}
    return session.run(["logits"], feeds)[0][0]


def _value(name: str, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # as the engine does
    return options


def lowered_alone(node: ir.Node, lower: Callable[[ir.Node], None]) -> Any:
    """onnxruntime's session of a graph that is one neutral operator, lowered."""
    inputs = [value for value in node.inputs if value is not None]
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": OPSET, MICROSOFT: 1}, name="g")
    lower(node)
    assert all(one.domain != DOMAIN for one in graph)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
