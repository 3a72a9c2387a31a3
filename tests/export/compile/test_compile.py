"""A real bundle through the real TensorRT-RTX, on a machine without a GPU."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.compile import isolated, run
from edgevlm_export.compile.build import BuiltEngine
from edgevlm_export.compile.options import CompileOptions
from edgevlm_export.compile.run import compile_bundle
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME, FileRecord
from edgevlm_runtime.errors import BundleAltered, BundleError, ExportError
from tests.export.compile.conftest import needs_rtx

GRAPHS = ("vision_encoder", "projector", "decoder")


def options(bundle: Path, *sms: int, **more: Any) -> CompileOptions:
    return CompileOptions(bundle=bundle, target="tensorrt-rtx", compute_capabilities=sms, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def compiled(rtx: Any, standard_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once, for three GPUs."""
    import shutil

    bundle = Path(shutil.copytree(standard_bundle, tmp_path_factory.mktemp("compiled") / "bundle"))
    compile_bundle(options(bundle, 86, 89, 120))
    return bundle


@needs_rtx
def test_engines_are_recorded(rtx: Any, compiled: Path, standard_bundle: Path) -> None:
    bundle = Bundle.open(compiled)  # every digest, the engines' included
    engines = {engine.graph: engine for engine in bundle.manifest.engines}
    assert tuple(engines) == GRAPHS
    for graph, engine in engines.items():
        file = compiled / engine.file
        record = bundle.manifest.files[engine.file]
        assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert record.bytes == file.stat().st_size > 1000
        assert engine.compute_capabilities == (86, 89, 120)
        assert engine.module_version == rtx.__version__
        assert engine.profiles == bundle.manifest.graphs[graph].profiles
        assert engine.device_memory_bytes is not None
        assert engine.device_memory_bytes > 0
    assert [profile.name for profile in engines["decoder"].profiles] == ["prefill", "decode"]
    before = contents(standard_bundle)
    after = {name: data for name, data in contents(compiled).items() if name in before}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {MANIFEST_NAME, MANIFEST_DIGEST_NAME}, "the rest of the bundle is what it was"


@needs_rtx
def test_rebuilt_engines_are_the_same_bytes(compiled: Path) -> None:
    first = contents(compiled)
    os.environ["EDGEVLM_SOMETHING_ELSE"] = "x" * 1000
    try:
        compile_bundle(options(compiled, 120, 89, 86))
    finally:
        del os.environ["EDGEVLM_SOMETHING_ELSE"]
    assert contents(compiled) == first


@needs_rtx
def test_other_gpus_take_the_place_of_older_engines(compiled: Path, tmp_path: Path) -> None:
    import shutil

    own = Path(shutil.copytree(compiled, tmp_path / "own"))
    stages: list[tuple[str, int, int]] = []
    report = compile_bundle(options(own, 121, workspace_mib=64), lambda *step: stages.append(step))
    engines = Bundle.open(own).manifest.engines
    assert {engine.compute_capabilities for engine in engines} == {(121,)}
    assert len(engines) == len(GRAPHS) == len(report.engines)
    for graph in GRAPHS:
        steps = [(done, total) for stage, done, total in stages if stage == f"compiling {graph}"]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 1, "the builder's own steps, to the end"


@needs_rtx
def test_gpu_the_library_does_not_know(own_standard_bundle: Path) -> None:
    before = contents(own_standard_bundle)
    with pytest.raises(ExportError, match=r"does not compile for SM 87: it knows 75, 80, 86"):
        compile_bundle(options(own_standard_bundle, 87))
    assert contents(own_standard_bundle) == before
    assert [path.name for path in own_standard_bundle.parent.iterdir()] == [own_standard_bundle.name]


@pytest.mark.usefixtures("stub_rtx")
@pytest.mark.parametrize("failure", [ExportError("no"), KeyboardInterrupt()])
def test_failure_leaves_the_bundle_as_it_was(
    own_standard_bundle: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """The builder is a STAND-IN that writes something and fails at the third graph."""
    before = contents(own_standard_bundle)

    def fails_at_the_last(_: CompileOptions, graph: str, info: Any, output: Path, __: Any) -> BuiltEngine:
        if graph == "decoder":
            raise failure
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"engine")
        return BuiltEngine(FileRecord(hashlib.sha256(b"engine").hexdigest(), 6), (), None, None, 0.0)

    monkeypatch.setattr(run, "build_isolated", fails_at_the_last)
    with pytest.raises(type(failure)):
        compile_bundle(options(own_standard_bundle, 86))
    assert contents(own_standard_bundle) == before
    assert [path.name for path in own_standard_bundle.parent.iterdir()] == [own_standard_bundle.name]


@needs_rtx
def test_interrupt_ends_the_build(own_standard_bundle: Path) -> None:
    """The library catches exceptions of its callbacks: the interrupt must still arrive."""

    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_bundle(options(own_standard_bundle, 86), interrupt)


@pytest.mark.usefixtures("stub_rtx")
def test_builder_that_is_killed_speaks_of_memory(own_standard_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system's out-of-memory killer does to the builder's process."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    real = isolated.subprocess.Popen
    monkeypatch.setattr(isolated.subprocess, "Popen", lambda command, **more: real([command[0], "-c", script], **more))
    with pytest.raises(ExportError, match="the builder ran out of memory while it compiled the vision_encoder"):
        compile_bundle(options(own_standard_bundle, 86))
    assert not (own_standard_bundle / run.FOLDER).exists()


@pytest.mark.usefixtures("stub_rtx")
def test_altered_bundle_is_not_compiled(own_standard_bundle: Path) -> None:
    file = own_standard_bundle / "decoder.onnx.data"
    file.write_bytes(bytes(reversed(file.read_bytes())))
    with pytest.raises(BundleAltered):
        compile_bundle(options(own_standard_bundle, 86))


@pytest.mark.usefixtures("stub_rtx")
def test_bundle_for_onnxruntime_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ExportError, match=r"graphs are for ONNX Runtime: export the model with --target tensorrt-rtx"):
        compile_bundle(options(tiny_bundle, 86))


@pytest.mark.usefixtures("stub_rtx")
def test_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        compile_bundle(options(tmp_path, 86))
