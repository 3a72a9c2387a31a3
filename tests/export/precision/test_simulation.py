"""What a format does to a layer, in PyTorch and in ONNX Runtime: the same, but for the order of sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevlm_export.graphs.edit import Rows
from edgevlm_export.precision import FORMATS, get_format
from tests.support.operators import linear_layer

EVERY = [(dialect, name) for dialect, formats in FORMATS.items() for name in formats]
MORE = [("ort", "int4:block=64,symmetric"), ("standard", "int4:block=32")]


@pytest.mark.parametrize(("dialect", "name"), [*EVERY, *MORE])
def test_like_the_operator(dialect, name):
    """Every format of every dialect foresees what its operators compute."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((48, 160)).astype(np.float32)
    x = (rng.standard_normal((1, 40, 160)) * np.exp(rng.standard_normal((1, 40, 1)))).astype(np.float32)
    run, job = linear_layer(get_format(name, dialect), weight, activations="float16" if name == "fp8" else "float32")
    exact = x[0] @ weight.T
    found = run(x)[0]
    ours = get_format(name, dialect).simulate(torch.from_numpy(x[0]), torch.from_numpy(weight)).numpy()
    loss = float(np.linalg.norm(found - exact))
    # all of the loss but rounding is foreseen; float32 has none
    assert float(np.linalg.norm(ours - found)) <= 0.35 * loss + 1e-4 * float(np.linalg.norm(exact))
    made = dict(job.make(torch.from_numpy(weight)))
    again = get_format(name, dialect).simulate(torch.from_numpy(x[0]), torch.from_numpy(weight), made).numpy()
    np.testing.assert_allclose(again, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [Rows.EVEN, Rows.MIXED])
def test_one_scale_for_all_rows(known):
    """As the operators have it, exactly; what each row's own largest value would give is something else."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((48, 160)).astype(np.float32)
    x = rng.standard_normal((1, 300, 160)).astype(np.float32)
    if known is Rows.MIXED:
        x *= np.exp(3 * rng.standard_normal((1, 300, 1))).astype(np.float32)
        x[0, 7] = 0
    run, _ = linear_layer(get_format("int8"), weight, known=known)
    tensors = torch.from_numpy(x[0]), torch.from_numpy(weight)
    ours = get_format("int8").simulate(*tensors, rows=known, together=128).numpy()
    found = np.concatenate([run(x[:, start : start + 128])[0] for start in (0, 128, 256)])
    assert not found[7].any() or known is Rows.EVEN
    size = np.abs(x[0]).max(-1, keepdims=True) + 1e-30
    np.testing.assert_allclose(ours / size, found / size, rtol=1e-3, atol=1e-3)
    by_row = get_format("int8").simulate(*tensors).numpy()
    assert np.linalg.norm((by_row - found) / size) > 20 * np.linalg.norm((ours - found) / size)


def test_a_bias_is_added_to_divided_rows():
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((48, 160)).astype(np.float32), rng.standard_normal(48).astype(np.float32)
    x = rng.standard_normal((1, 5, 160)).astype(np.float32)
    for known in Rows:
        plain, _ = linear_layer(get_format("int8"), weight, known=known)
        biased, _ = linear_layer(get_format("int8"), weight, bias, known=known)
        np.testing.assert_allclose(biased(x), plain(x) + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["int8b", "int4", "int4:symmetric", "int4:block=128"])
@pytest.mark.parametrize("columns", [64, 100])
def test_unpacked_is_what_was_stored(name, columns):
    fmt = get_format(name)
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(0))
    made = fmt.pack("w", (6, columns)).make(weight)
    again = dict(zip(made, fmt.stored(fmt.unpacked(made, columns)), strict=True))
    assert all(torch.equal(made[key], again[key]) for key in made)
