"""`edgevlm tune`: its JSON, and what it refuses."""

from __future__ import annotations

import json

import pytest

import edgevlm_runtime
from tests.support import records


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_json(invoke, tiny_bundle):
    found = json.loads(invoke("tune", tiny_bundle, "--rounds", "1", "--json").stdout)
    records.check("tune", found)
    assert list(found) == ["bundle", "prefill_chunk", "prefill_tokens_per_s", "positions", "file"]
    assert str(found["prefill_chunk"]) in found["prefill_tokens_per_s"]
    assert edgevlm_runtime.load(tiny_bundle).prefill_chunk == found["prefill_chunk"]


def test_no_bundle(invoke, refused, tmp_path):
    assert "manifest.json" in refused(invoke("tune", tmp_path))
