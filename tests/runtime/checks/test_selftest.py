"""The self-test notices what changes answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.errors import BundleError

Picture = Callable[[int], Image.Image]


def _load(bundle: Path) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(bundle, threads=1, verify="size")


def test_passes(tested: Path) -> None:
    result = run_self_test(_load(tested))
    assert result.passed
    assert result.tokens_match
    assert result.embeddings_match
    assert result.embeddings_max_abs < 1e-5
    assert len(result.token_ids) == 8


def test_other_embeddings(tested: Path) -> None:
    file = tested / "selftest" / "embeddings.npy"
    np.save(file, np.load(file) + 0.01)
    result = run_self_test(_load(tested))
    assert not result.passed
    assert not result.embeddings_match
    assert result.tokens_match
    assert result.embeddings_max_abs == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("bad", [np.full((4, 32), np.nan, np.float32), np.zeros((32, 4), np.float32)])
def test_embeddings_that_cannot_match(tested: Path, bad: np.ndarray) -> None:
    np.save(tested / "selftest" / "embeddings.npy", bad)
    result = run_self_test(_load(tested))
    assert not result.passed
    assert result.embeddings_max_abs == np.inf


def test_other_tokens(tested: Path, rewrite: Callable[..., None]) -> None:
    rewrite(tested, lambda data: data["self_test"]["token_ids"].__setitem__(3, 0))
    result = run_self_test(_load(tested))
    assert not result.passed
    assert not result.tokens_match
    assert result.embeddings_match


def test_the_image_cache_hides_nothing(tested: Path, tmp_path: Path) -> None:
    """Embeddings are computed here and now, though a good copy is in the cache."""
    cached = edgevlm_runtime.load(tested, threads=1, verify="size", image_cache_dir=tmp_path / "cache")
    assert run_self_test(cached).passed
    cached.pipeline.encoder.projector = _Zero()  # type: ignore[assignment]
    assert not run_self_test(cached).passed


class _Zero:
    inputs = ("image_features",)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image_embeddings": np.zeros((1, 4, 32), np.float32)}


def test_damaged_or_missing_self_test(tested: Path, rewrite: Callable[..., None]) -> None:
    file = tested / "selftest" / "embeddings.npy"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(BundleError, match="cannot read the self-test's embeddings"):
        run_self_test(_load(tested))
    data = json.loads((tested / schema.MANIFEST_NAME).read_text())
    assert data["self_test"]["prompt"] == "hello"
    rewrite(tested, lambda data: data.update(self_test=None))
    with pytest.raises(BundleError, match="has no self-test"):
        run_self_test(_load(tested))
