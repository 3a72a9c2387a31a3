"""CausalConv in both dialects, in runs of any length one after another: PyTorch's convolution over the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_export.graphs.dialects import ort
from edgevlm_export.graphs.dialects.standard import simple
from edgevlm_export.graphs.ops import DOMAIN
from tests.support.operators import lowered_alone

LOWER = {"ort": ort.LOWERINGS["CausalConv"], "standard": simple.causal_conv}


def lowered(dialect: str, channels: int, kernel: int, bias: bool) -> Any:
    def value(name: str, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    inputs = [value("x", 1, "S", channels), value("w", channels, 1, kernel), value("past", 1, kernel - 1, channels)]
    inputs += [value("b", channels)] if bias else []
    node = ir.node("CausalConv", inputs, domain=DOMAIN, num_outputs=2)
    for output, like, name in zip(node.outputs, (inputs[0], inputs[2]), ("y", "present"), strict=True):
        output.name, output.type, output.shape = name, like.type, like.shape
    return lowered_alone(node, LOWER[dialect])


@pytest.mark.parametrize("dialect", LOWER)
@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    channels=st.integers(1, 9),
    kernel=st.integers(2, 6),
    bias=st.booleans(),
)
def test_runs_are_one_convolution(dialect: str, runs: list[int], channels: int, kernel: int, bias: bool) -> None:
    session = lowered(dialect, channels, kernel, bias)
    rng = np.random.default_rng(sum(runs) + channels)
    x = rng.normal(size=(1, sum(runs), channels)).astype(np.float32)
    fixed = {"w": rng.normal(size=(channels, 1, kernel)).astype(np.float32)}
    fixed |= {"b": rng.normal(size=channels).astype(np.float32)} if bias else {}
    given_bias = torch.from_numpy(fixed["b"]) if bias else None
    padded = torch.nn.functional.pad(torch.from_numpy(x).mT, (kernel - 1, 0))
    wanted = torch.nn.functional.conv1d(padded, torch.from_numpy(fixed["w"]), given_bias, groups=channels).mT
    past, found, start = np.zeros((1, kernel - 1, channels), np.float32), [], 0
    for length in runs:
        y, past = session.run(None, {"x": x[:, start : start + length], "past": past, **fixed})
        found.append(y)
        start += length
    np.testing.assert_allclose(np.concatenate(found, axis=1), wanted.numpy(), atol=1e-5)
    np.testing.assert_array_equal(past, padded.mT[:, -(kernel - 1) :].numpy())
