"""A graph with an operator that the provider has no kernel for: one clear line that names it."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper, save

from edgevlm_runtime.engines.ort import make_engine
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions
from tests.support.graphs import alone


def test_one_line(tmp_path):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4, 8]) for name in ("x", "y")]
    shifts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("gamma", "beta")]
    node = helper.make_node(  # in onnxruntime for GPUs alone
        "GroupNorm", ["x", "gamma", "beta"], ["y"], domain="com.microsoft", groups=2, activation=0, channels_last=1
    )
    graph = helper.make_graph([node], "g", [ports[0], *shifts], [ports[1]])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(ProviderError, match=r"^[^\n]+$") as error:
        make_engine(RuntimeOptions()).load(alone(tmp_path / "g.onnx"))
    assert "GroupNorm" in str(error.value)
    assert "CPUExecutionProvider lacks an operator" in str(error.value)
