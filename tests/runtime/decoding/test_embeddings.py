"""Rows of the embedding table, straight from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.decoding.embeddings import TokenEmbeddings
from edgevlm_runtime.errors import BundleError, PromptError

VOCAB, HIDDEN = 262, 32


@pytest.fixture
def table(own_bundle: Path, rewrite: Callable[..., None]) -> Callable[..., Bundle]:
    """A bundle whose embedding table holds given bytes."""

    def make(data: bytes, **fields: Any) -> Bundle:
        (own_bundle / "embeddings.bin").write_bytes(data)
        rewrite(own_bundle, lambda manifest: manifest["decoder"]["embedding"].update(fields))
        manifest = schema.decode((own_bundle / schema.MANIFEST_NAME).read_bytes(), "manifest")
        return Bundle(own_bundle, manifest, "")

    return make


def _values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((VOCAB, HIDDEN)).astype(np.float32)


def _as_bfloat16(values: np.ndarray) -> bytes:
    """Truncated to bfloat16 by way of torch where it is installed, else by dropping the lower half."""
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize(
    ("dtype", "store", "relative"),
    [
        ("float32", lambda values: values.astype("<f4").tobytes(), 0.0),
        ("float16", lambda values: values.astype("<f2").tobytes(), 1e-3),
        ("bfloat16", _as_bfloat16, 1e-2),
    ],
)
@pytest.mark.parametrize(("offset", "scale"), [(0, 1.0), (3, 5.5)])
def test_rows(table: Any, dtype: str, store: Any, relative: float, offset: int, scale: float) -> None:
    values = _values()
    bundle = table(b"\xff" * offset + store(values) + b"tail", dtype=dtype, offset=offset, scale=scale)
    embeddings = TokenEmbeddings(bundle)
    ids = np.array([0, 261, 7, 7])
    out = np.empty((4, HIDDEN), np.float32)
    embeddings.gather(ids, out)
    np.testing.assert_allclose(out, values[ids] * np.float32(scale), rtol=relative, atol=1e-6 * relative)
    one = np.empty(HIDDEN, np.float32)
    embeddings.one(7, one)
    np.testing.assert_array_equal(one, out[2])


def test_bfloat16_equals_torch(table: Any) -> None:
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(_values()).to(torch.bfloat16)
    bundle = table(values.view(torch.uint16).numpy().tobytes(), dtype="bfloat16", offset=0)
    out = np.empty((VOCAB, HIDDEN), np.float32)
    TokenEmbeddings(bundle).gather(np.arange(VOCAB), out)
    np.testing.assert_array_equal(out, values.to(torch.float32).numpy())


@pytest.mark.parametrize("ids", [[-1], [262], [0, 10**9]])
def test_unknown_token(table: Any, ids: list[int]) -> None:
    embeddings = TokenEmbeddings(table(_values().tobytes(), offset=0))
    with pytest.raises(PromptError, match="outside the vocabulary of 262"):
        embeddings.gather(np.array(ids), np.empty((len(ids), HIDDEN), np.float32))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dtype": "uint8", "block": 16, "scales_offset": 16384},
        {"dtype": "uint4", "block": 16, "scales_offset": 16384},
    ],
    ids=["float32", "uint8", "uint4"],
)
def test_no_tokens(table: Any, fields: dict[str, Any]) -> None:
    """A chunk of a prompt may hold image tokens alone."""
    embeddings = TokenEmbeddings(table(_values().tobytes(), offset=0, **fields))
    embeddings.gather(np.array([], np.int64), np.empty((0, HIDDEN), np.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "int3"}, "unknown embedding dtype 'int3'"),
        ({"offset": 17}, "ends at byte"),
        ({"offset": -1}, "ends at byte"),
        ({"shape": [263, 32]}, "ends at byte"),
        ({"shape": [262, 16]}, "have width 16, the decoder 32"),
    ],
)
def test_description_that_does_not_fit(table: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        TokenEmbeddings(table(b"\0" * 16 + _values().tobytes(), **fields))
