"""From a bundle to engines, with a FAKE library and a FAKE GPU: what is refused, in which words. Nothing here says that
a real engine loads."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_runtime.bundle.engine_info import this_platform
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import MANIFEST_NAME, FileRecord, decode
from edgevlm_runtime.engines import make_engine
from edgevlm_runtime.engines.base import GraphRequest
from edgevlm_runtime.errors import BundleAltered, BundleError, BundleIncomplete, ProviderError
from edgevlm_runtime.options import RuntimeOptions
from tests.support.fake_cuda import FakeCuda
from tests.support.fake_engines import add_fake_engines, install, write_manifest
from tests.support.fake_nvidia import fake_tensorrt

ENGINE = "engines/tensorrt-rtx/decoder.engine"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch, fake_tensorrt(FakeCuda()))


@pytest.fixture
def compiled(own_bundle: Path) -> Path:
    """Its graphs are ONNX Runtime's, which no engine is made of: good enough to be refused for other reasons."""
    add_fake_engines(own_bundle)
    return own_bundle


def load(bundle: Path) -> object:
    engine = make_engine(RuntimeOptions(engine="tensorrt-rtx"))
    return engine.load(GraphRequest(Bundle.open(bundle, verify="size"), "decoder"))


def refusal(kind: type[Exception], bundle: Path) -> str:
    with pytest.raises(kind) as error:
        load(bundle)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_altered_engine_never_reaches_the_library(fakes: FakeCuda, compiled: Path) -> None:
    """Same size, other bytes: the fake would load it."""
    data = (compiled / ENGINE).read_bytes()
    (compiled / ENGINE).write_bytes(data.replace(b"in", b"on", 1) if b"in" in data else data[::-1])
    assert "decoder.engine is not the engine that was compiled" in refusal(BundleAltered, compiled)
    with pytest.raises(BundleAltered):
        edgevlm_runtime.load(compiled, engine="tensorrt-rtx")


def test_engine_that_is_missing_or_cut_short(fakes: FakeCuda, compiled: Path) -> None:
    (compiled / ENGINE).write_bytes((compiled / ENGINE).read_bytes()[:-1])
    assert ENGINE in refusal(BundleIncomplete, compiled)
    (compiled / ENGINE).unlink()
    assert ENGINE in refusal(BundleIncomplete, compiled)


def test_altered_manifest_is_refused(fakes: FakeCuda, compiled: Path) -> None:
    """Else whoever replaces an engine replaces its digest too."""
    manifest = (compiled / MANIFEST_NAME).read_text()
    (compiled / MANIFEST_NAME).write_text(manifest.replace("0.0-fake", "0.1-fake"))
    assert "manifest.sha256" in refusal(BundleAltered, compiled)


def test_bundle_without_engines(fakes: FakeCuda, own_bundle: Path) -> None:
    said = refusal(BundleError, own_bundle)
    assert "has no engine for decoder.onnx" in said
    assert said.endswith(f"run `edgevlm compile {own_bundle} --target tensorrt-rtx --sm 89`")


def test_engine_of_another_target(fakes: FakeCuda, own_bundle: Path) -> None:
    add_fake_engines(own_bundle, target="tensorrt")
    assert "has no engine for decoder.onnx" in refusal(BundleError, own_bundle)


def test_engine_for_other_gpus(fakes: FakeCuda, own_bundle: Path) -> None:
    add_fake_engines(own_bundle, sms=(86, 120))
    said = refusal(ProviderError, own_bundle)
    assert "is compiled for SM 86, 120, Fake GPU is SM 89" in said
    assert "--sm 89" in said


def test_engine_of_another_system(fakes: FakeCuda, own_bundle: Path) -> None:
    add_fake_engines(own_bundle, platform="windows-amd64")
    said = refusal(ProviderError, own_bundle)
    assert f"decoder.engine is compiled for windows-amd64, this is {this_platform()}: run `edgevlm compile" in said


def test_engine_of_another_version(fakes: FakeCuda, own_bundle: Path) -> None:
    add_fake_engines(own_bundle, version="9.9")
    assert "is compiled by tensorrt_rtx 9.9, here is 0.0-fake" in refusal(BundleError, own_bundle)


def test_engine_the_library_refuses(fakes: FakeCuda, compiled: Path) -> None:
    manifest = decode((compiled / MANIFEST_NAME).read_bytes(), "test")
    data = b"no engine"
    (compiled / ENGINE).write_bytes(data)
    record = FileRecord(hashlib.sha256(data).hexdigest(), len(data))
    write_manifest(compiled, replace(manifest, files={**manifest.files, ENGINE: record}))
    assert refusal(BundleError, compiled).endswith("magic tag does not match")


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_library_that_is_not_installed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = engine.replace("-", "_")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ProviderError, match=f"{module} is not installed: .*pip install {engine} cuda-python"):
        make_engine(RuntimeOptions(engine=engine))


def test_library_that_is_not_installed_for_real() -> None:
    """No stand-in: what this Python says."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed here")
    with pytest.raises(ProviderError, match=r"tensorrt is not installed: .*pip install tensorrt cuda-python"):
        make_engine(RuntimeOptions(engine="tensorrt"))


def test_cuda_bindings_that_are_not_installed(fakes: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProviderError, match=r"cuda\.bindings\.runtime is not installed: .*pip install cuda-python"):
        make_engine(RuntimeOptions(engine="tensorrt-rtx"))


def test_identity_names_library_and_gpu(fakes: FakeCuda) -> None:
    """Image embeddings of one engine are not taken for those of another."""
    assert make_engine(RuntimeOptions(engine="tensorrt-rtx")).identity == "tensorrt_rtx 0.0-fake Fake GPU SM 89"


def test_engines_are_checked_with_the_bundle(compiled: Path) -> None:
    """`edgevlm verify` and every load see an engine like any other file."""
    (compiled / ENGINE).write_bytes(b"x" * (compiled / ENGINE).stat().st_size)
    with pytest.raises(BundleAltered, match=r"decoder\.engine"):
        edgevlm_runtime.load(compiled)


def test_engine_without_a_digest_is_refused(compiled: Path) -> None:
    manifest = decode((compiled / MANIFEST_NAME).read_bytes(), "test")
    del manifest.files[ENGINE]
    write_manifest(compiled, manifest)
    with pytest.raises(BundleError, match="no digest for"):
        edgevlm_runtime.load(compiled)
