"""What each format of the standard dialect computes, against weights dequantized here by ONNX's documentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevlm_export.precision import FORMATS, get_format
from edgevlm_runtime.errors import ExportError
from tests.support.operators import linear_layer

ROWS, COLUMNS = 24, 96
QUANTIZED = ("int8", "int8w", "fp8", "int4", "int4:block=16")
INPUT_STEP = {"int8": 0.5 / 127, "fp8": 1 / 16}
"""Half a step of an input between -1 and 1: of int8 everywhere, of float8 (three bits of mantissa) for the largest."""
ACTIVATIONS = {"fp8": "float16"}
"""ONNX Runtime fuses float8 with float32 activations into an operator that does not take it."""


def layer(name: str, weight: np.ndarray, bias: np.ndarray | None = None):
    return linear_layer(fmt(name), weight, bias, ACTIVATIONS.get(name, "float32"))


def fmt(name: str):
    return get_format(name, "standard")


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32) * rng.uniform(0.1, 3, (ROWS, 1)).astype(np.float32)
    x = rng.standard_normal((1, 5, COLUMNS)).astype(np.float32)
    return weight, x, rng.standard_normal(ROWS).astype(np.float32)


def dequantized(made: dict[str, torch.Tensor]) -> np.ndarray:
    stored, scales = made.values()
    if stored.shape[1] == COLUMNS // 2:  # int4, two's complement, the first value in the low half of a byte
        nibbles = np.stack([stored.numpy() & 15, stored.numpy() >> 4], -1).reshape(ROWS, COLUMNS).astype(int)
        stored = torch.from_numpy(np.where(nibbles > 7, nibbles - 16, nibbles))
    scales = scales.reshape(ROWS, -1).repeat_interleave(COLUMNS // scales.reshape(ROWS, -1).shape[1], 1)
    assert bool((scales > 0).all())
    return (stored.float() * scales).numpy()


@pytest.mark.parametrize("name", QUANTIZED)
def test_product_of_the_stored_weights(name):
    weight, x, bias = drawn()
    run, job = layer(name, weight, bias)
    stored = dequantized(dict(job.make(torch.from_numpy(weight))))
    exact = x.astype(np.float64) @ stored.T + bias
    step = INPUT_STEP.get(name, 0)
    bound = np.abs(x).max(-1, keepdims=True) * step * np.abs(stored).sum(1) + (0.1 if name in ACTIVATIONS else 1e-4)
    assert (np.abs(run(x) - exact) <= bound).all()
    assert np.linalg.norm(stored - weight) < 0.12 * np.linalg.norm(weight)


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_an_outlier_row_leaves_the_others_alone(name):
    weight, x, _ = drawn()
    run, _ = layer(name, weight)
    spoiled = x.copy()
    spoiled[0, 2] *= 1e4
    kept = [0, 1, 3, 4]
    assert np.allclose(run(spoiled)[0, kept], run(x)[0, kept], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "activations"),
    [(name, kind) for name in QUANTIZED for kind in ("float32", "float16") if kind == ACTIVATIONS.get(name, kind)],
)
def test_rows_of_zeros(name, activations):
    weight, x, bias = drawn()
    weight[3], x[0, 1] = 0, 0
    run, _ = linear_layer(fmt(name), weight, bias, activations)
    found = run(x)
    assert np.isfinite(found).all()
    assert np.allclose(found[0, 1], bias, atol=2e-3)
    assert np.allclose(found[0, :, 3], bias[3], atol=2e-3)


@pytest.mark.parametrize("name", [name for name in FORMATS["standard"] if name not in ACTIVATIONS])
def test_float16_activations_behind_float32_buffers(name):
    weight, x, bias = drawn()
    run, _ = linear_layer(fmt(name), weight, bias)
    half, _ = linear_layer(fmt(name), weight, bias, "float16")
    found, wanted = half(x), run(x)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_int4_refuses_what_engines_do_not_take():
    with pytest.raises(ExportError, match="no multiple of 16"):
        fmt("int4").pack("w", (8, 88))
    with pytest.raises(ExportError, match="zero points"):
        fmt("int4:asymmetric")
    assert fmt("int4:block=32").options.block == 32


def test_formats_of_the_other_dialect_are_unknown():
    with pytest.raises(ExportError, match=r"int8b: known are fp32, fp16, int8, int8w"):
        fmt("int8b")
    with pytest.raises(ExportError, match="unknown precision: fp8"):
        get_format("fp8")
