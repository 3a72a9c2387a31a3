"""GatedDelta in both dialects, in runs of any length one after another: transformers' own loop over the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

from edgevlm_export.graphs.dialects import ort
from edgevlm_export.graphs.dialects.standard import gated_delta
from edgevlm_export.graphs.ops import DOMAIN
from tests.support.operators import lowered_alone

LOWER = {"ort": ort.LOWERINGS["GatedDelta"], "standard": gated_delta}


def lowered(dialect: str, key_heads: int, heads: int, key: int, value: int) -> Any:
    def port(name: str, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    inputs = [port("q", 1, "S", key_heads * key), port("k", 1, "S", key_heads * key), port("v", 1, "S", heads * value)]
    inputs += [port(name, 1, "S", heads) for name in ("log_decay", "beta")] + [port("past", 1, heads, key, value)]
    attributes = {"key_heads": key_heads, "heads": heads, "scale": key**-0.5}
    node = ir.node("GatedDelta", inputs, attributes=attributes, domain=DOMAIN, num_outputs=2)
    for output, like, name in zip(node.outputs, (inputs[2], inputs[5]), ("y", "present"), strict=True):
        output.name, output.type, output.shape = name, like.type, like.shape
    return lowered_alone(node, LOWER[dialect])


@pytest.mark.parametrize("dialect", LOWER)
@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.integers(1, 9) | st.just(70), min_size=1, max_size=4),
    shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 9)] * 2),
    fade=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_runs_are_one_recurrence(dialect, runs, shape, fade, seed) -> None:
    key_heads, times, key, value = shape
    heads, length = key_heads * times, sum(runs)
    session = lowered(dialect, key_heads, heads, key, value)
    draw = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(1, length, key_heads, key, generator=draw) for _ in range(2))
    q, k = (torch.nn.functional.normalize(x, dim=-1) for x in (q, k))
    v = torch.randn(1, length, heads, value, generator=draw)
    log_decay, beta = -fade * torch.rand(1, length, heads, generator=draw), torch.rand(1, length, heads, generator=draw)
    begin = torch.randn(1, heads, key, value, generator=draw)
    wanted, last = torch_recurrent_gated_delta_rule(q, k, v, log_decay, beta, begin, output_final_state=True)
    fed = {"q": q.flatten(2), "k": k.flatten(2), "v": v.flatten(2), "log_decay": log_decay, "beta": beta}
    past, found, start = begin.numpy(), [], 0
    for run in runs:
        part = {name: x[:, start : start + run].numpy() for name, x in fed.items()}
        y, past = session.run(None, {**part, "past": past})
        found.append(y)
        start += run
    np.testing.assert_allclose(np.concatenate(found, axis=1), wanted.flatten(2).numpy(), atol=2e-5)
    np.testing.assert_allclose(past, last.numpy(), atol=2e-5)
