"""Tuning: the fastest of the measured chunks is used from then on, by later loads as well, and only where it holds."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.decoding import tuning
from edgevlm_runtime.decoding.attention import chunks
from edgevlm_runtime.errors import EdgeVLMError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@given(start=st.integers(0, 500), count=st.integers(0, 5000), most=st.integers(1, 700))
def test_chunks_cover_the_prompt_evenly(start: int, count: int, most: int) -> None:
    parts = list(chunks(start, start + count, most))
    sizes = [stop - begin for begin, stop in parts]
    assert sum(sizes) == count
    assert len(sizes) == -(-count // most)
    if parts:
        assert (parts[0][0], parts[-1][1]) == (start, start + count)
        assert all(left[1] == right[0] for left, right in pairwise(parts))
        assert 1 <= min(sizes) <= max(sizes) <= min(most, min(sizes) + 1)


def test_measured_once_used_ever_after(tiny_bundle: Path, own_cache: Path) -> None:
    vlm = edgevlm_runtime.load(tiny_bundle)
    told: list[tuple[int, int]] = []
    found, file = vlm.tune(2, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert found.tokens_per_s[found.prefill_chunk] == max(found.tokens_per_s.values()) > 0
    assert file.is_relative_to(own_cache)
    assert json.loads(file.read_text())["prefill_chunks"] == {vlm.engine.identity: found.prefill_chunk}
    assert edgevlm_runtime.load(tiny_bundle).prefill_chunk == vlm.prefill_chunk == found.prefill_chunk
    assert edgevlm_runtime.load(tiny_bundle, prefill_chunk=7).prefill_chunk == 7


def test_answers_are_those_of_an_untuned_model(tiny_bundle: Path) -> None:
    vlm = edgevlm_runtime.load(tiny_bundle)
    before = vlm.ask(None, "a long question " * 5).token_ids
    vlm.tune(1)
    assert vlm.ask(None, "a long question " * 5).token_ids == before


def test_no_rounds(tiny_bundle: Path) -> None:
    with pytest.raises(EdgeVLMError, match="rounds"):
        edgevlm_runtime.load(tiny_bundle).tune(0)


def test_nothing_is_measured_that_cannot_be_kept(
    own_cache: Path, vlm: edgevlm_runtime.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.write_text("a file where the folder should be")
    monkeypatch.setattr(tuning, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(EdgeVLMError, match="tuning cannot be kept"):
        vlm.tune()
