"""The ONNX Runtime engine: providers are asserted, failures are one line, nothing is copied."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.engines import ENGINES, cores, make_engine
from edgevlm_runtime.engines import ort as ort_engine
from edgevlm_runtime.engines.memory import lazy_zeros
from edgevlm_runtime.engines.ort import WHOLE_ATTENTION, OrtEngine
from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from edgevlm_runtime.engines.providers import provider_name
from edgevlm_runtime.errors import BundleError, EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions
from tests.support.graphs import alone


def test_unknown_engine() -> None:
    with pytest.raises(ProviderError, match="unknown engine: other: known are ort, openvino, tensorrt, tensorrt-rtx"):
        make_engine(RuntimeOptions(engine="other"))


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_engine_in_the_registry_is_there(name: str) -> None:
    assert callable(ENGINES.get(name))


def test_default_engine_is_made() -> None:
    assert isinstance(make_engine(RuntimeOptions()), OrtEngine)


@pytest.mark.skipif(cores.usable_cores() < 2, reason="one thread waits for no other")
def test_no_thread_waits_busily_for_the_next_question(tiny_bundle: Path) -> None:
    """It would take half the processor from whatever comes next: another graph, another program."""
    vlm = edgevlm_runtime.load(tiny_bundle, threads=2)
    shares = []
    for shade in range(5):
        vlm.ask(Image.new("RGB", (32, 32), (shade, 0, 0)), "what is it?", max_new_tokens=6)
        wall, busy = time.perf_counter(), time.process_time()
        time.sleep(0.05)
        shares.append((time.process_time() - busy) / (time.perf_counter() - wall))
    assert sorted(shares)[2] < 0.15


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_attention_is_computed_whole_unless_asked_otherwise(
    handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """For our sessions; the process's environment is as it was."""
    monkeypatch.delenv(WHOLE_ATTENTION, raising=False)
    if before is not None:
        monkeypatch.setenv(WHOLE_ATTENTION, before)
    seen: list[str | None] = []
    real = onnxruntime.InferenceSession

    def session(*arguments: Any, **more: Any) -> Any:
        seen.append(os.environ.get(WHOLE_ATTENTION))
        return real(*arguments, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    edgevlm_runtime.load(handmade_bundle)
    assert set(seen) == {before or "1"}
    seen.clear()
    monkeypatch.setattr(ort_engine, "MOST_SCORES", 100)
    edgevlm_runtime.load(handmade_bundle)
    assert set(seen) == {before}, "a long context: tiles"
    assert os.environ.get(WHOLE_ATTENTION) == before


def test_provider_that_is_not_installed(handmade_bundle: Path) -> None:
    with pytest.raises(ProviderError) as error:
        edgevlm_runtime.load(handmade_bundle, provider="cuda")
    assert "CUDAExecutionProvider was asked for" in str(error.value)
    assert "onnxruntime-gpu" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_provider() -> None:
    with pytest.raises(ProviderError, match="unknown provider 'gpu': known are auto, cpu, cuda"):
        make_engine(RuntimeOptions(provider="gpu"))


def test_provider_that_is_listed_but_does_not_load(handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu without a driver: the provider is listed, the session silently runs on the CPU."""

    class FallenBack:
        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(ProviderError, match="did not load, onnxruntime fell back to CPUExecutionProvider"):
        edgevlm_runtime.load(handmade_bundle, provider="cuda")


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    file = tmp_path / "decoder.onnx"
    file.write_bytes(b"not a graph")
    with pytest.raises(BundleError) as error:
        OrtEngine("CPUExecutionProvider", 1).load(alone(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(BundleError, match="no graph file"):
        OrtEngine("CPUExecutionProvider", 1).load(alone(tmp_path / "none.onnx"))


def test_onnxruntime_writes_nothing_itself(tmp_path: Path) -> None:
    """Not even when it fails: its messages come as errors."""
    file = tmp_path / "bad.onnx"
    file.write_bytes(b"not a graph")
    code = (
        "from pathlib import Path\n"
        "from edgevlm_runtime.engines import make_engine\n"
        "from edgevlm_runtime.errors import BundleError\n"
        "from edgevlm_runtime.options import RuntimeOptions\n"
        "from tests.support.graphs import alone\n"
        "try:\n"
        f"    make_engine(RuntimeOptions()).load(alone(Path({str(file)!r})))\n"
        "except BundleError:\n"
        "    pass\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (done.stdout, done.stderr) == ("", "")


def test_wrong_feed_is_one_line(vlm: edgevlm_runtime.VLM, handmade_bundle: Path) -> None:
    graph = OrtEngine("CPUExecutionProvider", 1).load(alone(handmade_bundle / "projector.onnx"))
    with pytest.raises(EdgeVLMError) as error:
        graph.run({"image_features": np.zeros((1, 4, 5), np.float32)})
    assert str(error.value).startswith("projector.onnx failed")
    assert "\n" not in str(error.value)


def test_binding_reads_and_writes_the_callers_memory(handmade_bundle: Path) -> None:
    graph = OrtEngine("CPUExecutionProvider", 1).load(alone(handmade_bundle / "projector.onnx"))
    features = np.zeros((1, 4, 12), np.float32)
    out = np.full((1, 4, 32), np.nan, np.float32)
    binding = graph.binding()
    binding.bind_input("image_features", features)
    binding.bind_output("image_embeddings", out)
    binding.run()
    assert not out.any()
    features[...] = np.random.default_rng(0).standard_normal(features.shape)  # contents change, the binding stays
    binding.run()
    np.testing.assert_array_equal(out, graph.run({"image_features": features})["image_embeddings"])


def test_binding_refuses_memory_it_cannot_address(handmade_bundle: Path) -> None:
    graph = OrtEngine("CPUExecutionProvider", 1).load(alone(handmade_bundle / "projector.onnx"))
    with pytest.raises(ValueError, match="C-contiguous"):
        graph.binding().bind_input("image_features", np.zeros((1, 12, 4), np.float32).transpose(0, 2, 1))


def test_cache_memory_is_committed_where_it_is_written() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    cache = lazy_zeros((1, 64, 4096, 1024), np.float32)  # 1 GiB; a head's rows are 16 MiB apart
    cache[:, :, 0] = 1
    assert cache.nbytes == 1 << 30
    assert resident() - before < 32 << 20
    assert not cache[0, 5, 1].any()


def test_cache_that_cannot_be_reserved() -> None:
    with pytest.raises(EdgeVLMError, match="smaller max_context"):
        lazy_zeros((1 << 20, 1 << 30, 1 << 10), np.float32)


def test_threads_default_to_physical_cores(handmade_bundle: Path) -> None:
    engine = make_engine(RuntimeOptions())
    assert isinstance(engine, OrtEngine)
    assert engine.threads == cores.physical_cores()


@pytest.mark.parametrize(("wanted", "taken"), [(1, 1), (4, 4), (5, 4), (64, 4)])
def test_more_threads_than_can_run_at_once_are_not_made(
    wanted: int, taken: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cores, "_allowed_cpus", lambda: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(cores, "_quota", lambda: 4)
    engine = make_engine(RuntimeOptions(threads=wanted))
    assert isinstance(engine, OrtEngine)
    assert engine.threads == taken
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == (
        [] if taken == wanted else [f"{wanted} threads were asked for: this machine runs 4 at once, which are used"]
    )


def test_hyper_threads_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(cores, "_QUOTA", quota)
    monkeypatch.setattr(cores, "_allowed_cpus", lambda: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cores.physical_cores() == 4
    quota.write_text("max 100000")
    assert cores.physical_cores() == 4
    quota.write_text("150000 100000")
    assert cores.physical_cores() == 2
    monkeypatch.setattr(cores, "_allowed_cpus", lambda: {1, 5})
    assert cores.physical_cores() == 1


def test_provider_names() -> None:
    assert provider_name("CPU") == "CPUExecutionProvider"
    assert provider_name("ROCMExecutionProvider") == "ROCMExecutionProvider"
