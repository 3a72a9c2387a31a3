"""Weights in blocks, widened to 8 bits: each value is the nearest step of its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevlm_runtime.bundle.blocks import widen
from edgevlm_runtime.bundle.decoder_info import EmbeddingTable
from edgevlm_runtime.bundle.manifest import WidenedWeight
from edgevlm_runtime.errors import BundleError


def _stored(
    folder: Path, quants: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int, columns: int
) -> EmbeddingTable:
    """`quants` [rows, blocks, block] as ONNX's MatMulNBits has them, behind a few other bytes."""

    def packed(values: np.ndarray) -> bytes:
        if bits == 8:
            return values.astype(np.uint8).tobytes()
        even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)]).astype(np.uint8)
        return (even[..., 0::2] + 16 * even[..., 1::2]).tobytes()

    parts = [b"other", packed(quants), scales.astype("<f4").tobytes()]
    parts += [] if zeros is None else [packed(zeros)]
    (folder / "weights").write_bytes(b"".join(parts))
    starts = np.cumsum([len(part) for part in parts]).tolist()
    rows, _, block = quants.shape
    return EmbeddingTable(
        "weights",
        starts[0],
        f"uint{bits}",
        (rows, columns),
        1.0,
        block,
        starts[1],
        None if zeros is None else starts[2],
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 5), st.sampled_from([16, 32, 128])),
    bits=st.sampled_from([4, 8]),
    asymmetric=st.booleans(),
    threads=st.integers(1, 3),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_widened_values_are_the_nearest(
    tmp_path: Path, seed: int, shape: tuple[int, int, int], bits: int, asymmetric: bool, threads: int
) -> None:
    """Of float32 by the definition of both formats; rows of zeros and padded blocks among them."""
    random = np.random.default_rng(seed)
    rows, blocks, block = shape
    columns = int(random.integers((blocks - 1) * block + 1, blocks * block + 1))
    mixed = int(random.choice([0, columns & -columns]))
    quants = random.integers(0, 1 << bits, (rows, blocks, block))
    zeros = random.integers(0, 1 << bits, (rows, blocks)) if asymmetric else None
    middle = 1 << (bits - 1) if zeros is None else zeros[..., None]
    scales = random.standard_normal((rows, blocks)).astype(np.float32) * 10.0 ** random.integers(-6, 6)
    scales[random.random(rows) < 0.1] = 0
    table = _stored(tmp_path, quants, scales, zeros, bits, columns)
    values = ((quants - middle).astype(np.float32) * scales[..., None]).reshape(rows, -1)[:, :columns]
    if mixed:
        order = np.arange(mixed)
        signs = (-1.0) ** np.bitwise_count(order[:, None] & order)  # Sylvester's matrix, by another definition
        values = (values.reshape(rows, -1, mixed) @ (signs / np.sqrt(mixed))).reshape(rows, columns)
    made, steps = widen([WidenedWeight("w", table, mixed)], tmp_path.joinpath, threads)["w"]
    assert made.shape == (columns, rows)
    assert np.abs(made.astype(int)).max() <= 127
    apart = np.abs(made.T * steps[:, None].astype(float) - values)
    assert (apart <= steps[:, None] * 0.501 + 1e-30).all()
    largest = np.abs(values).max(1)
    assert (np.abs(made).max(0)[largest > 0] == 127).all()
    assert not made[:, largest == 0].any()


def test_what_does_not_fit_the_file(tmp_path: Path) -> None:
    quants, scales = np.ones((4, 2, 16), int), np.ones((4, 2))
    good = _stored(tmp_path, quants, scales, None, 4, 32)
    for change, message in (
        ({"offset": 10**6}, "ends at byte"),
        ({"offset": -1}, "ends at byte"),
        ({"block": 0}, "names no scales"),
        ({"block": 3}, "blocks of 3"),
        ({"scales_offset": None}, "names no scales"),
        ({"dtype": "float32"}, "unknown type 'float32' of w"),
    ):
        fields = {name: getattr(good, name) for name in EmbeddingTable.__dataclass_fields__} | change
        with pytest.raises(BundleError, match=message):
            widen([WidenedWeight("w", EmbeddingTable(**fields))], tmp_path.joinpath, 1)
