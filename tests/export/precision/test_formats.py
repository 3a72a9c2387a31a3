"""What each format's operators compute, against weights quantized and dequantized here, independently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_export.precision import FORMATS, Format, get_format, thresholds_of
from edgevlm_export.precision.thresholds import EXACT
from edgevlm_runtime.errors import ExportError
from tests.support.operators import linear_layer

BLOCKWISE = (
    "int8b",
    "int8b:block=32",
    "int4",
    "int4:symmetric",
    "int4:block=128",
    "int4:block=64,symmetric",
    "int4:nearest",
)
FEW = settings(max_examples=12, deadline=None)


def _draw(seed: int, rows: int, columns: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    x = rng.standard_normal((1, length, columns)).astype(np.float32)
    return weight, x, rng.standard_normal(rows).astype(np.float32)


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _unpacked(made: dict[str, np.ndarray], bits: int, columns: int) -> np.ndarray:
    """Weights [rows, columns] from the bytes of MatMulNBits' inputs, by the operator's documentation."""
    quants = made["w.quants"]
    zeros = made.get("w.zero_points")
    blocks = quants.shape[1]

    def nibbles(values: np.ndarray) -> np.ndarray:
        return np.stack([values & 15, values >> 4], -1).reshape(*values.shape[:-1], -1)

    codes = nibbles(quants) if bits == 4 else quants
    if zeros is None:
        zero = np.full(quants.shape[:2], 1 << (bits - 1))
    else:
        zero = (nibbles(zeros) if bits == 4 else zeros)[:, :blocks]
    values = (codes.astype(np.float64) - zero[..., None]) * made["w.scales"][..., None]
    return values.reshape(len(values), -1)[:, :columns]


@pytest.mark.parametrize("name", BLOCKWISE)
@FEW
@given(rows=st.integers(1, 70), columns=st.integers(1, 300), length=st.integers(1, 6), seed=st.integers(0, 99))
def test_blockwise_operator_computes_with_the_stored_weights(name, rows, columns, length, seed):
    """Activations are in 8 bits, so the product differs by the error of rounding them, and by no more.

    The bound is that of rounding every activation to the nearest of 255 steps of its block's range.
    """
    weight, x, bias = _draw(seed, rows, columns, length)
    run, job = linear_layer(get_format(name), weight, bias)
    made = {key: value.numpy() for key, value in job.make(_tensor(weight)).items()}
    stored = _unpacked(made, get_format(name).options.bits, columns)
    exact = x.astype(np.float64) @ stored.T + bias
    bound = np.abs(x).max(axis=-1, keepdims=True) / 254 * np.abs(stored).sum(axis=1) * 1.05 + 1e-4
    assert (np.abs(run(x) - exact) <= bound).all()


@pytest.mark.parametrize("name", BLOCKWISE)
@FEW
@given(rows=st.integers(1, 20), columns=st.integers(1, 300), seed=st.integers(0, 99))
def test_blockwise_weights_are_within_half_a_step(name, rows, columns, seed):
    weight, _, _ = _draw(seed, rows, columns, 1)
    fmt = get_format(name)
    job = fmt.pack("w", (rows, columns))
    made = {key: value.numpy() for key, value in job.make(_tensor(weight)).items()}
    stored = _unpacked(made, fmt.options.bits, columns)
    block = made["w.quants"].shape[2] * 8 // fmt.options.bits
    step = np.abs(made["w.scales"]).repeat(block, axis=1)[:, :columns]
    # a zero point that is rounded, or a positive value as large as the extreme negative one, may cost half a step more
    assert (np.abs(stored - weight) <= step * (0.5 if fmt.options.bits == 8 else 1.0) + 1e-6).all()


@FEW
@given(rows=st.integers(1, 70), columns=st.integers(1, 300), length=st.integers(1, 6), seed=st.integers(0, 99))
def test_w8a8_is_within_its_rounding_of_float(rows, columns, length, seed):
    weight, x, bias = _draw(seed, rows, columns, length)
    run, _ = linear_layer(get_format("int8"), weight, bias)
    scales = np.abs(weight).max(axis=1) / 127
    stored = np.round(weight / scales[:, None]) * scales[:, None]
    exact = x.astype(np.float64) @ stored.T + bias
    row = np.abs(x).max(axis=-1, keepdims=True)
    bound = row * (2 / 255 / 2) * np.abs(stored).sum(axis=1) * 1.05 + 1e-4
    assert (np.abs(run(x) - exact) <= bound).all()


def test_w8a8_rows_do_not_disturb_each_other():
    """A row a thousand times larger leaves the others as they were: the operator alone would round them to nothing."""
    weight, x, _ = _draw(3, 48, 200, 4)
    run, _ = linear_layer(get_format("int8"), weight)
    large = x.copy()
    large[0, 2] *= 1000
    others = [0, 1, 3]
    assert _relative(run(large)[0, others], (x @ weight.T)[0, others]) < 0.02


def test_w8a8_row_of_zeros_gives_the_bias():
    weight, x, bias = _draw(4, 9, 33, 3)
    x[0, 1] = 0
    run, _ = linear_layer(get_format("int8"), weight, bias)
    np.testing.assert_array_equal(run(x)[0, 1], bias)
    assert np.isfinite(run(np.zeros_like(x))).all()


@pytest.mark.parametrize("name", ["int8", "int8b", "int4", "int4:symmetric"])
def test_rows_of_zeros_in_the_weight_stay_zero(name):
    weight, x, _ = _draw(5, 12, 96, 3)
    weight[4] = 0
    run, _ = linear_layer(get_format(name), weight)
    assert (run(x)[0, :, 4] == 0).all()


@pytest.mark.parametrize(
    ("name", "bits"),
    [("fp32", 32), ("fp16", 16), ("int8", 8.1), ("int8b", 8.3), ("int4:block=128", 4.4), ("int4", 5.2)],
)
def test_bytes_on_disk(name, bits):
    """Bits a weight, scales and zero points included."""
    job = get_format(name).pack("w", (256, 1024))
    made = job.make(_tensor(_draw(6, 256, 1024, 1)[0]))
    assert sum(value.nbytes for value in made.values()) == job.nbytes <= bits * 256 * 1024 / 8


@pytest.mark.parametrize("columns", [576, 64, 896, 1152, 4864])
def test_little_of_a_row_is_padding(columns):
    """Blocks that do not fit are made smaller rather than padded."""
    job = get_format("int8b").pack("w", (1, columns))
    assert job.outputs["w.quants"].shape[1] * job.outputs["w.quants"].shape[2] <= columns * 17 / 16


@pytest.mark.parametrize("name", [name for name in FORMATS["ort"] if name.startswith("int")])
def test_finer_formats_are_more_faithful(name):
    """Each format's error on a layer, in the order one expects."""
    weight, x, _ = _draw(7, 128, 256, 32)
    run, _ = linear_layer(get_format(name), weight)
    limits = {"int8": 0.015, "int8b": 0.012, "int4": 0.12}
    assert _relative(run(x), x @ weight.T) < limits[name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("int3", "unknown precision: int3"),
        ("int4:block=48", "block size 48 is not supported"),
        ("int4:blocks=32", "unknown option of int4: 'blocks=32'"),
        ("int8:block=32", "precision int8 takes no options"),
        ("int4:", "unknown option of int4: ''"),
    ],
)
def test_bad_names(name, says):
    with pytest.raises(ExportError, match=r"^[^\n]+$") as error:
        get_format(name)
    assert str(error.value).startswith(says)


def _tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(array)


def test_a_format_says_everything_or_is_none():
    """Nothing has a default: what a format leaves out is an error when it is made."""

    class Forgetful(Format):
        def pack(self, weight, shape):
            raise AssertionError

        def lower(self, model, node):
            raise AssertionError

    with pytest.raises(TypeError, match="simulate"):
        Forgetful("forgetful", "fp32", (), EXACT)
    with pytest.raises(TypeError, match="thresholds"):
        type("Bare", (Forgetful,), {"simulate": None})("bare", "fp32", ())


@pytest.mark.parametrize(("dialect", "name"), [(dialect, name) for dialect in FORMATS for name in FORMATS[dialect]])
def test_every_format_names_formats_that_exist(dialect, name):
    fmt = get_format(name, dialect)
    assert fmt.name == name
    assert all(get_format(finer, dialect).finer != fmt.finer for finer in fmt.finer)
    assert get_format(fmt.table).pack("table", (4, 32)).table is not None
    assert thresholds_of(f"{name}:block=64") is fmt.thresholds
