"""Percentiles, ratios and comparisons follow from the rows."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edgevlm.benchmark import baseline
from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.results import EngineResult, Machine, Ratios, Results, compare, spread, summarize
from edgevlm.benchmark.sustained import INTERVALS, intervals
from edgevlm.benchmark.workload import Facts
from edgevlm.json_text import plain
from edgevlm.machine import Processor
from edgevlm_runtime import EdgeVLMError, saving

FACTS = Facts("random", (28, 28), 4, 20, 24, 8, 5, 1, 2, "cpu")


def sample(scale: float = 1.0, **other: object) -> Sample:
    """Times in the proportions of a real model."""
    times = {
        "preprocess_ms": 4.0,
        "vision_ms": 100.0,
        "projector_ms": 10.0,
        "prefill_ms": 80.0,
        "decode_ms_per_token": 5.0,
        "time_to_first_token_ms": 200.0,
        "total_ms": 240.0,
        "repeat_question_ttft_ms": 20.0,
    }
    return Sample(**{**{name: scale * value for name, value in times.items()}, "prefill_tokens": 40, **other})


def engine(label: str, scales: list[float], name: str = "edgevlm", precision: str = "int8") -> EngineResult:
    return EngineResult(
        label=label,
        name=name,
        precision=precision,
        source=label,
        model_bytes=1000,
        import_cpu_ms=100.0,
        load_ms=50.0 * scales[0],
        rss_loaded_mib=80.0,
        peak_rss_mib=100.0 * scales[0],
        tokens_like_reference=None,
        **summarize([sample(scale) for scale in scales]),
    )


MACHINE = Machine(Processor("cpu", "x86_64", 2, 2, None), 2**34, "Linux", "3.11", {"numpy": "2"}, busy_before=0.0)


def results(*engines: EngineResult) -> Results:
    return Results(MACHINE, FACTS, engines, compare(engines))


def test_percentiles_are_numpys():
    values = list(np.random.default_rng(0).exponential(10, 57))
    found = spread(values)
    assert (found.p50, found.p95, found.p99) == pytest.approx(tuple(np.percentile(values, (50, 95, 99))), abs=1e-4)


def test_rates_are_of_the_median_round():
    found = engine("a", [3.0, 1.0, 2.0])
    assert found.vision_ms.p50 == pytest.approx(200)
    assert found.prefill_tokens_per_s == pytest.approx(40 / 0.160)
    assert found.decode_tokens_per_s == pytest.approx(100)
    assert found.repeat_over_first == pytest.approx(0.1)


def test_energy_needs_every_round():
    known = [sample(energy_j=2.0), sample(energy_j=4.0), sample(energy_j=9.0)]
    assert summarize(known)["energy_j"] == pytest.approx(4)
    assert summarize([*known, sample()])["energy_j"] is None


def test_ratios_say_how_many_times_better():
    torch = engine("PyTorch float32", [4.0], "pytorch", "float32")
    half = engine("PyTorch bfloat16", [2.0], "pytorch", "bfloat16")
    found = compare([engine("a", [1.0]), engine("b", [0.5]), half, torch])
    assert found.pytorch == found.by_engine["a"]
    assert set(found.pytorch.values()) == {4.0}
    assert {"vision", "prefill", "decode", "time_to_first_token"} <= set(found.pytorch)
    assert set(found.by_engine["PyTorch bfloat16"].values()) == {2.0}
    assert set(found.first_bundle) == {"b"}
    assert set(found.first_bundle["b"].values()) == {2.0}


def test_without_float32_there_is_nothing_to_compare_with():
    found = compare([engine("a", [1.0]), engine("PyTorch bfloat16", [2.0], "pytorch", "bfloat16")])
    assert found == Ratios(pytorch=None, by_engine=None, first_bundle=None)


def test_saved_results_come_back(tmp_path):
    saved = results(engine("a", [1.0, 2.0]))
    saving.write_atomic(tmp_path / "new" / "saved.json", baseline.dump(saved))
    assert baseline.load(tmp_path / "new" / "saved.json") == saved
    assert msgspec.convert(json.loads(json.dumps(plain(saved))), Results) == saved


def test_results_that_name_no_engine_are_onnxruntimes(tmp_path):
    """Those saved before there was a choice."""
    saved = plain(results(engine("a", [1.0])))
    del saved["workload"]["engine"]
    (tmp_path / "saved.json").write_text(json.dumps(saved))
    before = baseline.load(tmp_path / "saved.json")
    baseline.check_workload(before, FACTS, tmp_path)
    with pytest.raises(EdgeVLMError, match="engine was ort, is tensorrt"):
        baseline.check_workload(before, replace(FACTS, engine="tensorrt"), tmp_path)


def test_worse_is_seen_in_both_directions():
    before, after = engine("a", [1.0]), engine("a", [1.5])
    found = {change.measure: change.worse_by for change in baseline.changes(results(before), results(after))}
    assert found == dict.fromkeys(baseline.MEASURES, pytest.approx(0.5))
    better = [change.worse_by for change in baseline.changes(results(after), results(before))]
    assert better == [pytest.approx(-1 / 3, abs=1e-4)] * len(baseline.MEASURES)


def test_bundles_are_found_by_name_and_pytorch_is_not_ours_to_judge():
    torch = engine("PyTorch float32", [1.0], "pytorch", "float32")
    before = results(engine("a", [1.0]), engine("b", [1.0]), torch)
    after = results(engine("b", [2.0]), replace(torch, load_ms=1e6))
    assert {change.engine for change in baseline.changes(before, after)} == {"b"}
    assert {c.engine for c in baseline.changes(results(engine("old", [1.0])), results(engine("new", [1.0])))} == {"new"}
    with pytest.raises(EdgeVLMError, match="it has a, b"):
        baseline.changes(before, results(engine("c", [1.0])))


def test_another_workload_is_refused(tmp_path):
    before = results(engine("a", [1.0]))
    baseline.check_workload(before, replace(FACTS, repeats=50, warmup=0), tmp_path)
    with pytest.raises(EdgeVLMError, match="new tokens was 8, is 9"):
        baseline.check_workload(before, replace(FACTS, new_tokens=9), tmp_path)
    with pytest.raises(EdgeVLMError, match="image size was 28x28, is 30x28"):
        baseline.check_workload(before, replace(FACTS, image_size=(30, 28)), tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe", "not a saved benchmark"),
        (b"[1, 2", "not a saved benchmark"),
        (b'{"n": 3}', "not a saved benchmark"),
        (b'{"format": "edgevlm-bench", "version": 99}', "another version"),
        (b'{"format": "edgevlm-bench", "version": 1, "machine": 3}', "damaged"),
    ],
)
def test_foreign_files_are_refused(content, named, tmp_path):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(EdgeVLMError, match=named) as refusal:
        baseline.load(tmp_path / "file.json")
    assert "file.json" in str(refusal.value)


def test_a_machine_that_slows_down_is_seen():
    """Rounds take 1 s in the first half of a minute, 2 s in the second."""
    ends = [*range(1, 31), *range(32, 61, 2)]
    rounds = [
        {"at_s": float(end), "sample": sample(1.0 if end <= 30 else 2.0), "clock_mhz": 1000.0, "temperature_c": None}
        for end in ends
    ]
    found = intervals(rounds, 60)
    assert len(found) == INTERVALS
    assert sum(one.rounds for one in found) == len(rounds)
    assert found[0].rounds_per_minute == pytest.approx(60)
    assert found[-1].rounds_per_minute == pytest.approx(30, rel=0.1)
    assert found[-1].time_to_first_token_ms == pytest.approx(400)
    assert (found[0].clock_mhz, found[0].temperature_c) == (1000.0, None)


def test_rounds_longer_than_an_interval():
    rounds = [{"at_s": 7.0 * n, "sample": sample(), "clock_mhz": None, "temperature_c": None} for n in (1, 2)]
    assert [one.rounds for one in intervals(rounds, 10)] == [1, 1]
