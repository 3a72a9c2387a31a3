"""Full-size bundles through the real TensorRT-RTX, for three generations of GPUs at once, on a machine without one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shapes import make_checkpoint
from edgevlm_export.compile.options import CompileOptions
from edgevlm_export.compile.run import compile_bundle
from edgevlm_export.inspector import checkpoint_path
from edgevlm_runtime.bundle.folder import GRAPHS, Bundle
from tests.export.compile.conftest import needs_rtx

SMS = (86, 89, 120)
SHAPE = "clip-l-336-qwen2-0.5b"

pytestmark = [pytest.mark.slow, needs_rtx]


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP-L/336 and Qwen2-0.5B, every product in its true size, with random weights."""
    folder = tmp_path_factory.mktemp("shapes") / SHAPE
    make_checkpoint(folder, SHAPE)
    return folder


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_inspector(precision: str, export_bundle: Any) -> None:
    check(Path(export_bundle(checkpoint_path(), precision=precision, target="tensorrt-rtx")))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_qwen2(precision: str, qwen2: Path, export_bundle: Any) -> None:
    """Not int4: its calibration is long on a processor, and inspector's engine has the same operators."""
    check(Path(export_bundle(qwen2, precision=precision, target="tensorrt-rtx", max_context=2048)))


def check(bundle: Path) -> None:
    """Compile it; every graph has an engine that is recorded as it lies there."""
    report = compile_bundle(CompileOptions(bundle=bundle, target="tensorrt-rtx", compute_capabilities=SMS))
    opened = Bundle.open(bundle)  # every digest
    engines = {engine.graph: engine for engine in opened.manifest.engines}
    assert tuple(engines) == tuple(report.engines) == GRAPHS
    for graph, engine in engines.items():
        data = (bundle / engine.file).read_bytes()
        assert opened.manifest.files[engine.file].sha256 == hashlib.sha256(data).hexdigest()
        assert len(data) > 10_000
        assert engine.compute_capabilities == SMS
        assert engine.profiles == opened.manifest.graphs[graph].profiles
    shutil.rmtree(bundle)  # gigabytes
