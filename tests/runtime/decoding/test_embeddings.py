"""Rows of the embedding table, straight from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.decoding.embeddings import TokenEmbeddings
from edgevlm_runtime.errors import BundleError, BundleIncomplete, PromptError

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


def columns(name: str, width: int, offset: int, scale: float) -> dict[str, Any]:
    table = {"file": "embeddings.bin", "offset": offset, "dtype": "float32", "shape": [VOCAB, width], "scale": scale}
    return {"name": name, "table": table}


@given(
    ids=st.lists(st.integers(0, VOCAB - 1), max_size=9),
    stand_ins=st.dictionaries(st.integers(0, 300), st.integers(0, VOCAB - 1), max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_token_columns(table: Any, own_bundle: Path, rewrite: Any, ids: list[int], stand_ins: dict[int, int]) -> None:
    """Each from a table of its own; tokens with a stand-in have its rows in every table, one by one as together."""
    values = np.random.default_rng(1).standard_normal((VOCAB, HIDDEN + 8)).astype(np.float32)
    parts = np.split(values, [HIDDEN, HIDDEN + 3], axis=1)
    starts = np.cumsum([0, *(part.nbytes for part in parts)]).tolist()
    given = [columns("first", 3, starts[1], 2.0), columns("second", 5, starts[2], 0.5)]
    plain = {str(token): row for token, row in stand_ins.items()}
    rewrite(own_bundle, lambda data: data["decoder"].update(token_columns=given, stand_ins=plain))
    embeddings = TokenEmbeddings(table(b"".join(part.tobytes() for part in parts), offset=0))
    rows = [stand_ins.get(token, token) for token in ids]
    wanted = np.concatenate([parts[1][rows] * np.float32(2), parts[2][rows] * np.float32(0.5)], axis=1)
    out, own = np.empty((len(ids), 8), np.float32), np.empty((len(ids), HIDDEN), np.float32)
    embeddings.gather_columns(np.array(ids, np.int64), out)
    embeddings.gather(np.array(ids, np.int64), own)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(own, parts[0][rows])
    for place, token in enumerate(ids):
        one, more = np.empty(HIDDEN, np.float32), [np.empty(3, np.float32), np.empty(5, np.float32)]
        embeddings.one(token, one)
        embeddings.one_columns(token, more)
        np.testing.assert_array_equal(one, own[place])
        np.testing.assert_array_equal(np.concatenate(more), out[place])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": -1}, "offset, shape"),
        ({"shape": [10**9, 3]}, "offset, shape"),
        ({"shape": [262, 0]}, "table.shape"),
        ({"file": "elsewhere.data"}, "no digest for 'elsewhere.data'"),
    ],
)
def test_columns_that_do_not_fit(own_bundle: Path, rewrite: Any, fields: dict[str, Any], message: str) -> None:
    one = columns("first", 3, 0, 1.0)
    one["table"] |= {**fields}
    rewrite(own_bundle, lambda data: data["decoder"].update(token_columns=[one]))
    with pytest.raises((BundleError, BundleIncomplete), match=message) as error:
        edgevlm_runtime.load(own_bundle, threads=1, verify="size")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ids", [[-1], [262], [0, 10**9]])
def test_unknown_token(table: Any, ids: list[int]) -> None:
    embeddings = TokenEmbeddings(table(_values().tobytes(), offset=0))
    with pytest.raises(PromptError, match="outside the vocabulary of 262"):
        embeddings.gather(np.array(ids), np.empty((len(ids), HIDDEN), np.float32))
    with pytest.raises(PromptError, match="outside the vocabulary of 262"):
        embeddings.one(ids[-1], np.empty(HIDDEN, np.float32))


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
        ({"dtype": "uint4", "block": 3, "scales_offset": 0}, "blocks of 3"),
        ({"dtype": "uint4", "block": 1 << 61, "scales_offset": 0}, "ends at byte"),
    ],
)
def test_description_that_does_not_fit(table: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        TokenEmbeddings(table(b"\0" * 16 + _values().tobytes(), **fields))
