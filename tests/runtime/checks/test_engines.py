"""Every installed engine on every graph: what agrees, what passes, what is slower, and what an engine cannot do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime.checks.engines import Trial, compare, difference, installed
from edgevlm_runtime.checks.tune import tune
from edgevlm_runtime.engines import ort
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.tuned import Tuned
from edgevlm_runtime.engines.base import Array, Graph, GraphRequest
from edgevlm_runtime.engines.ort_graph import OrtGraph
from edgevlm_runtime.errors import EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions

SLOW_S = 0.01
"""What ONNX Runtime's vision encoder and projector are made to take here at least."""


def quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


class Shifted:
    """A graph whose outputs are off by so much, and which is as fast as it is."""

    def __init__(self, graph: OrtGraph, by: float) -> None:
        self._graph, self._by = graph, by
        self.inputs, self.outputs = graph.inputs, graph.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = self._graph._session.run(list(self.outputs), dict(feeds))
        return {name: value + np.float32(self._by) for name, value in zip(self.outputs, values, strict=True)}


class Other(ort.OrtEngine):
    """Runs the first two graphs past what slows ONNX Runtime down here, and no decoder."""

    def __init__(self, by: float) -> None:
        super().__init__("CPUExecutionProvider", 1)
        self.identity, self.by = f"other {by}", by

    def load(self, request: GraphRequest) -> Graph:
        if request.name == "decoder":
            raise ProviderError("other has no such operator")
        graph: Any = Shifted(super().load(request), self.by)  # type: ignore[arg-type]
        return graph


class Engines(Mapping[str, Callable[[RuntimeOptions], Any]]):
    """The engines of this test: ort, one that is right and quick, one that is quick alone, one that is not there."""

    known: Mapping[str, Callable[[RuntimeOptions], Any]]

    def __init__(self) -> None:
        def gone(options: RuntimeOptions) -> Any:
            raise ProviderError("gone is not installed")

        self.known = {
            "ort": ort.make_engine,
            "right": lambda options: Other(0.0),
            "wrong": lambda options: Other(0.5),
            "gone": gone,
        }

    def get(self, name: str) -> Any:  # type: ignore[override]
        return self.known[name]

    def __getitem__(self, name: str) -> Any:
        return self.known[name]

    def __iter__(self) -> Any:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


@pytest.fixture
def vlm(tested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> edgevlm_runtime.VLM:
    """A bundle with a self-test on a slow ONNX Runtime."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for place in ("edgevlm_runtime.engines.ENGINES", "edgevlm_runtime.checks.engines.ENGINES"):
        monkeypatch.setattr(place, Engines())
    real = OrtGraph.run

    def slow(graph: OrtGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(SLOW_S)
        return real(graph, feeds)

    monkeypatch.setattr(OrtGraph, "run", slow)
    return edgevlm_runtime.load(tested, engine="ort", threads=1, verify="size")


def test_what_is_installed(vlm: edgevlm_runtime.VLM) -> None:
    assert list(installed(vlm.options)) == ["right", "wrong"]


def test_each_engine_on_each_graph(vlm: edgevlm_runtime.VLM) -> None:
    found = {
        one.trials.graph: {trial.engine: trial for trial in one.trials.trials}
        for one in compare(vlm.pipeline, 2, quiet)
    }
    assert list(found) == ["vision_encoder", "projector", "decoder"]
    assert {tuple(trials) for trials in found.values()} == {("ort", "right", "wrong")}
    for graph in ("vision_encoder", "projector"):
        base, right, wrong = found[graph].values()
        assert (base.passed, right.passed, wrong.passed) == (True, True, False)
        assert (right.cosine_min, right.max_abs) == (pytest.approx(1.0), 0.0)
        assert wrong.max_abs == pytest.approx(0.5, abs=1e-3)
        assert "embeddings are off by" in (wrong.problem or "")
        assert (base.ms or 0) > 1e3 * SLOW_S > (right.ms or 0)
    base, right, _ = found["decoder"].values()
    assert base.passed
    assert right == Trial("right", "other 0.0", False, "other has no such operator")


def test_no_rounds_measure_no_time(vlm: edgevlm_runtime.VLM) -> None:
    assert {trial.ms for one in compare(vlm.pipeline, 0, quiet) for trial in one.trials.trials} == {None}


def test_the_fastest_that_passes_is_kept_and_used(vlm: edgevlm_runtime.VLM) -> None:
    found = tune(vlm, 2, quiet)
    assert found.engine == "vision_encoder=right,projector=right"
    assert [choice.gain > 1 for choice in found.choices] == [True, True, False]
    assert found.file is not None
    kept = tuned.recall(vlm.pipeline.tuning_key)
    assert kept is not None
    assert kept.engines == {"vision_encoder": "right", "projector": "right", "decoder": "ort"}
    later = edgevlm_runtime.load(vlm.bundle.path, threads=1, verify="size")
    assert later.engine.identity.startswith("vision_encoder, projector: other 0.0; decoder: onnxruntime")
    assert later.prefill_chunk == found.chunk.prefill_chunk


def test_nothing_is_kept_of_a_dry_run(vlm: edgevlm_runtime.VLM) -> None:
    assert tune(vlm, 1, quiet, keep=False).file is None
    assert tuned.recall(vlm.pipeline.tuning_key) is None


def test_an_engine_that_was_named_leaves_the_others_as_they_were(vlm: edgevlm_runtime.VLM) -> None:
    tune(vlm, 1, quiet)
    before = tuned.recall(vlm.pipeline.tuning_key)
    found = tune(vlm, 1, quiet, engines=False)
    assert (found.choices, found.engine) == ((), None)
    after = tuned.recall(vlm.pipeline.tuning_key)
    assert before is not None
    assert after is not None
    assert after.engines == before.engines


def test_what_another_version_measured_is_dropped(vlm: edgevlm_runtime.VLM) -> None:
    tuned.remember(vlm.pipeline.tuning_key, Tuned({"projector": "wrong"}, {}, {"x": 3}, runtime="0.0.1"))
    tune(vlm, 1, quiet, engines=False)
    after = tuned.recall(vlm.pipeline.tuning_key)
    assert after is not None
    assert (after.engines, list(after.prefill_chunks)) == ({}, [vlm.engine.identity])


def test_a_bundle_without_a_self_test_keeps_its_engines(
    handmade_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = tune(edgevlm_runtime.load(handmade_bundle, engine="ort", threads=1), 1, quiet)
    assert found.engine is None
    assert found.not_compared is not None
    assert "has no self-test" in found.not_compared


def test_nothing_is_measured_that_cannot_be_kept(vlm: edgevlm_runtime.VLM, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(EdgeVLMError, match="tuning cannot be kept"):
        tune(vlm, 1, lambda *_: pytest.fail("measured"))


@pytest.mark.parametrize(
    ("got", "cosine", "largest"),
    [
        ([[3.0, 4.0], [1.0, 0.0]], 1.0, 0.0),
        ([[3.0, 4.0], [0.0, 1.0]], 0.0, 1.0),
        ([[4.0, 3.0], [1.0, 0.0]], 24 / 25, 1.0),
        ([[3.0, 4.0], [0.0, 0.0]], 1.0, 1.0),
        ([[3.0, 4.0]], -1.0, float("inf")),
        ([[3.0, 4.0], [float("nan"), 0.0]], -1.0, float("inf")),
    ],
)
def test_difference(got: list[list[float]], cosine: float, largest: float) -> None:
    """Against values computed by hand; a row of zeros has no direction."""
    expected = {"x": np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)}
    assert difference({"x": np.array(got, np.float32)}, expected) == (pytest.approx(cosine), pytest.approx(largest))
