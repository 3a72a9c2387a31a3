"""`python -m benchmarks.gpu` as far as it goes without a GPU: it refuses; figures and page are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, gpu_measure, gpu_report
from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.workload import Task, Workload


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_refuses_where_there_is_no_gpu(tmp_path: Path) -> None:
    done = CliRunner().invoke(gpu.main, ["--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: no GPU to measure: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_numerics_are_torchs() -> None:
    rng = np.random.default_rng(0)
    expected, noise = rng.standard_normal((2, 7, 11)).astype(np.float32)
    got = expected + 0.1 * noise
    found = gpu_measure.numerics(got, expected)
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), dim=-1) for logits in (expected, got))
    assert found["kl_mean"] == pytest.approx(
        float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")) / 7
    )
    assert found["max_abs"] == pytest.approx(float(np.abs(got - expected).max()))
    assert gpu_measure.numerics(expected, expected) == {"kl_mean": 0.0, "top1_agreement": 1.0, "max_abs": 0.0}


def test_failures_are_rows_of_the_table() -> None:
    medians = {
        "vision_and_projector_ms": 1.0,
        "prefill_ms": 2.0,
        "decode_ms_per_token": 4.0,
        "time_to_first_token_ms": 3.5,
        "repeat_question_ttft_ms": 1.5,
    }
    numerics = {"kl_mean": 1e-4, "top1_agreement": 0.995, "max_abs": 0.1}
    rows: list[dict[str, Any]] = [
        {"name": "CUDA", "medians": medians, "numerics": numerics},
        {"name": "RTX", "error": "does not compile | for SM 90"},
    ]
    lines = gpu_report.table(rows).splitlines()
    assert lines[2] == "| CUDA | 1.00 | 2.00 | 250.0 | 3.50 | 1.50 | 0.0001 | 99.5 % |"
    assert lines[3].startswith("| RTX | failed: does not compile / for SM 90 |")
    assert {line.count("|") for line in lines} == {len(gpu_report.HEADER) + 1}


def test_what_fails_does_not_stop_the_rest() -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error:\nillegal address")

    assert gpu_measure.attempt(fail) == {"error": "RuntimeError: CUDA error: illegal address"}


class FakeEngine:
    """Rounds of known length; the first ones, of the warm-up, are far off."""

    def __init__(self) -> None:
        self.vision = iter((1000.0, 1.0, 2.0, 6.0))

    def ask(self, task: Task) -> tuple[Sample, tuple[int, ...]]:
        vision = next(self.vision)
        return Sample(0.5, vision, 10 * vision, 3.0, 7, 4.0, 5.0, 9.0, 6.0), (1, 2)


def test_vision_is_told_with_the_projector() -> None:
    """Of each round; PyTorch's are not to be told apart."""
    workload = Workload(repeats=3, warmup=1)
    found = gpu_measure.timed(FakeEngine, Task("i", "a", "b", 2, 1, "cuda"), workload)
    assert found["medians"] == {
        "vision_and_projector_ms": 22.0,
        "prefill_ms": 3.0,
        "decode_ms_per_token": 4.0,
        "time_to_first_token_ms": 5.0,
        "repeat_question_ttft_ms": 6.0,
    }
    assert (len(found["rounds"]), found["tokens"]) == (3, [1, 2])


def test_every_step_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    def measure() -> list[dict[str, Any]]:
        return gpu._measure("inspector", "fp16", Workload(repeats=1, warmup=0), tmp_path, {"sm": 89})

    line = {"error": "OSError: No space left on device"}
    monkeypatch.setattr(gpu, "export_bundle", fail)
    assert measure() == [{"name": "export", **line}]
    monkeypatch.setattr(gpu, "export_bundle", lambda *_: tmp_path)
    monkeypatch.setattr(gpu.Bundle, "open", fail)
    assert measure() == [{"name": "questions", **line}]
    monkeypatch.setattr(gpu, "source_of", fail)
    assert measure() == [{"name": "checkpoint", **line}]


def test_engines_are_compiled_once_a_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STAND-INS for everything but the order of things; two candidates share the bundle, and one line when it fails."""
    compiled: list[Path] = []

    def compile_engines(bundle: Path, sm: int) -> dict[str, Any]:
        compiled.append(bundle)
        raise RuntimeError("does not compile for SM 90")

    monkeypatch.setattr(gpu, "export_bundle", lambda *given: tmp_path / given[3])
    monkeypatch.setattr(gpu.Bundle, "open", lambda _: None)
    monkeypatch.setattr(gpu, "prepare", lambda *_: (Task("i", "a", "b", 2, 1, "cuda"), Workload()))
    monkeypatch.setattr(gpu, "reference_logits", lambda *_: np.zeros((1, 2)))
    monkeypatch.setattr(gpu, "timed", lambda *_: {"medians": {}})
    monkeypatch.setattr(gpu, "run", lambda *_: {"medians": {}})
    monkeypatch.setattr(gpu, "compile_engines", compile_engines)
    rows = gpu._measure("inspector", "fp16", Workload(), tmp_path, {"sm": 90})
    assert compiled == [tmp_path / "tensorrt-rtx"]
    failed = [row["name"] for row in rows if row.get("error") == "RuntimeError: does not compile for SM 90"]
    assert failed == ["TensorRT-RTX", "TensorRT-RTX, CUDA graph"]
    assert len(rows) == 3 + len(gpu.CANDIDATES)


def test_pytorch_is_gone_when_it_was_measured(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights too, without waiting for the garbage collector: the clock in the model holds no cycle."""
    import gc
    import weakref

    from benchmarks import gpu_torch
    from edgevlm_export.reference import Reference

    model = Reference.load(str(tiny_checkpoint)).model
    watch = gpu_torch._Watch(model.model)
    model.model.get_image_features = watch
    inner = weakref.ref(model.model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert inner() is None
    finally:
        gc.enable()
