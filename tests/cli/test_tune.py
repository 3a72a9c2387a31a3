"""`edgevlm tune`: its JSON, and what it refuses."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.chosen import REASON
from edgevlm_runtime.engines.assigned.several import engine_of
from edgevlm_runtime.engines.assigned.tuned import Tuned
from tests.support import records


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_json(invoke, tiny_bundle):
    found = json.loads(invoke("tune", tiny_bundle, "--rounds", "1", "--json").stdout)
    records.check("tune", found)
    assert str(found["prefill_chunk"]) in found["prefill_tokens_per_s"]
    assert [graph["graph"] for graph in found["graphs"]] == ["vision_encoder", "projector", "decoder"]
    assert all(graph["trials"][0]["engine"] == "ort" for graph in found["graphs"])
    assert edgevlm_runtime.load(tiny_bundle).prefill_chunk == found["prefill_chunk"]


def test_no_bundle(invoke, refused, tmp_path):
    assert "manifest.json" in refused(invoke("tune", tmp_path))


def test_a_table_for_people(invoke, tiny_bundle):
    result = invoke("tune", tiny_bundle, "--rounds", "1", "--dry-run")
    assert result.exit_code == 0, result.stderr
    for graph in ("vision_encoder", "projector", "decoder"):
        assert f"{graph}: " in result.stdout
    assert "nothing is kept" in result.stderr
    assert json.loads(invoke("tune", tiny_bundle, "--reset", "--json").stdout) == {"removed": None}


def test_reset(invoke, refused, tiny_bundle):
    file = json.loads(invoke("tune", tiny_bundle, "--rounds", "1", "--json").stdout)["file"]
    assert Path(file).is_file()
    found = json.loads(invoke("tune", tiny_bundle, "--reset", "--json").stdout)
    records.check("tune", found, 1)
    assert found == {"removed": file}
    assert not Path(file).exists()
    assert "leave out --dry-run" in invoke("tune", tiny_bundle, "--reset", "--dry-run").stderr


@pytest.fixture
def moved(tiny_bundle):
    """A tuning that has the projector on OpenVINO, as a machine would leave it where that is faster."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    vlm = edgevlm_runtime.load(tiny_bundle, engine="projector=openvino")
    engines = {"vision_encoder": "ort", "projector": "openvino", "decoder": "ort"}
    one = {spec: engine_of(vlm.engine, graph).identity for graph, spec in engines.items()}
    return tuned.remember(vlm.pipeline.tuning_key, Tuned(engines, one))


def test_run_takes_over_and_says_so(invoke, tiny_bundle, moved, picture):
    asked = ("run", tiny_bundle, "-i", picture, "-p", "what?", "--max-new-tokens", 2, "--json")
    result = invoke(*asked)
    assert result.exit_code == 0, result.stderr
    engine = json.loads(result.stdout)["engine"]
    assert "projector: openvino" in engine["name"]
    assert engine["reason"] == REASON
    assert result.stderr.splitlines() == [f"{REASON}: {engine['name']}"]
    named = invoke(*asked, "--engine", "ort")
    assert (json.loads(named.stdout)["engine"]["reason"], named.stderr) == ("as asked", "")
    own = json.loads(invoke(*asked, "--engine", "vision_encoder=openvino").stdout)["engine"]
    assert own["name"].startswith("vision_encoder: openvino")
    moved.write_text(moved.read_text().replace("projector", "decoder"))
    changed = invoke(*asked)
    assert changed.exit_code == 0
    assert changed.stderr.startswith("WARNING: the tuning file was changed")


def test_bench_takes_over_and_says_so(invoke, tiny_bundle, moved):
    small = ("--repeats", 1, "--warmup", 0, "--new-tokens", 2, "--text-tokens", 16, "--json")
    result = invoke("bench", tiny_bundle, *small)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["workload"]["engine"] == "projector=openvino"
    assert REASON in result.stderr
    plain = json.loads(invoke("bench", tiny_bundle, *small, "--engine", "ort").stdout)
    assert plain["workload"]["engine"] == "ort"
