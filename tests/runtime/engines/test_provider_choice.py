"""Which of onnxruntime's providers is taken, and which is refused. Sessions of CUDA are FAKE; every path without a GPU
(provider missing, operators left to the CPU) is the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgevlm_runtime
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines import load_graphs, make_engine, providers
from edgevlm_runtime.engines.base import AS_ASKED, GraphRequest
from edgevlm_runtime.engines.ort import OrtEngine
from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from edgevlm_runtime.engines.placement import check_placement
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions

CUDA = "CUDAExecutionProvider"


def placed(**operators: str) -> Any:
    """A session whose operators lie on these providers."""
    parts = [
        SimpleNamespace(ep_name=provider, get_nodes=lambda kind=kind: [SimpleNamespace(op_type=kind)] * 2)
        for kind, provider in operators.items()
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_heavy_operators_on_the_cpu_are_refused() -> None:
    session = placed(MatMul=CUDA, GroupQueryAttention="CPUExecutionProvider", Gather="CPUExecutionProvider")
    with pytest.raises(ProviderError) as error:
        check_placement(session, CUDA, "decoder.onnx")
    assert f"{CUDA} has no kernel for 2 GroupQueryAttention of decoder.onnx" in str(error.value)
    assert "--provider cpu" in str(error.value)


def test_shape_arithmetic_may_stay_on_the_cpu() -> None:
    check_placement(placed(MatMul=CUDA, Shape="CPUExecutionProvider"), CUDA, "decoder.onnx")


def test_real_session_says_where_its_operators_are(handmade_bundle: Path) -> None:
    """The real onnxruntime, on the CPU: the very situation that is refused for CUDA."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(handmade_bundle / "decoder.onnx", options, ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="2 GroupQueryAttention"):
        check_placement(session, CUDA, "decoder.onnx")


def test_any_provider_that_leaves_the_work_to_the_cpu_is_refused(handmade_bundle: Path) -> None:
    """The real onnxruntime, with a provider that every build has and that runs none of these operators."""
    azure = "AzureExecutionProvider"
    if azure not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {azure}")
    with pytest.raises(ProviderError) as error:
        edgevlm_runtime.load(handmade_bundle, provider=azure)
    assert f"{azure} has no kernel for" in str(error.value)
    assert "which would run on the CPU: use --provider cpu" in str(error.value)
    assert "tensorrt" not in str(error.value)


def test_auto_takes_the_cpu_for_a_bundle_that_cuda_cannot_run(
    handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FAKE provider that loads, and lacks an operator of the last graph: all graphs are then the CPU's."""
    real = OrtEngine.load

    def load(engine: OrtEngine, request: GraphRequest) -> Any:
        if engine.provider != CUDA:
            return real(engine, request)
        if request.name == "decoder":
            raise ProviderError(f"{CUDA} has no kernel for 2 GroupQueryAttention of decoder.onnx")
        return object()

    monkeypatch.setattr(providers, "_obstacle", lambda *_: None)
    monkeypatch.setattr(OrtEngine, "load", load)
    vlm = edgevlm_runtime.load(handmade_bundle, provider="auto", threads=1)
    assert vlm.engine.identity.endswith("CPUExecutionProvider")
    assert vlm.engine.reason == f"auto: {CUDA} has no kernel for 2 GroupQueryAttention of decoder.onnx"
    assert vlm.engine.automatic
    with vlm.session() as session:
        assert session.ask("x", max_new_tokens=1).token_ids


def test_a_provider_that_was_asked_for_gives_way_to_none(
    handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(engine: OrtEngine, request: GraphRequest) -> Any:
        raise ProviderError(f"{CUDA} has no kernel for {request.name}")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(OrtEngine, "load", refuse)
    with pytest.raises(ProviderError, match="has no kernel for decoder"):
        load_graphs(
            make_engine(RuntimeOptions(provider="cuda")), [GraphRequest(Bundle.open(handmade_bundle), "decoder")]
        )


def test_auto_without_a_gpu_takes_the_cpu_and_says_why() -> None:
    """The real onnxruntime of this machine."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    engine = make_engine(RuntimeOptions(provider="auto"))
    assert isinstance(engine, OrtEngine)
    assert engine.provider == "CPUExecutionProvider"
    assert engine.reason == "auto: cuda is not in the installed onnxruntime"


@pytest.fixture
def fake_ort(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """onnxruntime that lists CUDA, and whose sessions come up on `active`."""

    def fake(active: list[str]) -> None:
        session = SimpleNamespace(get_providers=lambda: active)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)

    return fake


def test_auto_takes_cuda_where_it_loads(fake_ort: Callable[..., None]) -> None:
    fake_ort([CUDA, "CPUExecutionProvider"])
    engine = make_engine(RuntimeOptions(provider="auto"))
    assert (engine.identity.split()[-1], engine.reason) == (CUDA, "auto: cuda loads here")
    assert engine.automatic


def test_auto_passes_over_cuda_that_does_not_load(fake_ort: Callable[..., None]) -> None:
    fake_ort(["CPUExecutionProvider"])
    engine = make_engine(RuntimeOptions(provider="auto"))
    assert engine.identity.split()[-1] == "CPUExecutionProvider"
    assert engine.reason == "auto: cuda does not load"


def test_missing_library_is_named(tmp_path: Path) -> None:
    """onnxruntime-gpu without CUDA's libraries: the loader's own words."""
    library = tmp_path / "capi" / "libonnxruntime_providers_cuda.so"
    library.parent.mkdir()
    library.touch()
    fake = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))

    def load(file: str) -> None:
        assert file == str(library)
        raise OSError("libcublasLt.so.13: cannot open shared object file: No such file or directory")

    assert providers.missing_library(fake, CUDA, load) == "libcublasLt.so.13"
    assert providers.missing_library(fake, CUDA, lambda _: None) is None
    assert providers.missing_library(fake, "DmlExecutionProvider", load) is None


def test_engine_and_reason_of_a_loaded_model(handmade_bundle: Path) -> None:
    vlm = edgevlm_runtime.load(handmade_bundle, threads=1)
    assert vlm.engine.identity.endswith("CPUExecutionProvider")
    assert (vlm.engine.reason, vlm.engine.automatic) == (AS_ASKED, False)
    assert AS_ASKED == "as asked", "a word of the JSON that commands print"
