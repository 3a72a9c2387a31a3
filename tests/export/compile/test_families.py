"""Every family's graphs through the real TensorRT-RTX: its parser takes all of them, its compiler makes engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.compile.options import CompileOptions
from edgevlm_export.compile.run import compile_bundle
from edgevlm_export.families import FAMILIES
from edgevlm_runtime.bundle.folder import GRAPHS, Bundle
from tests.export.compile.conftest import needs_rtx
from tests.support import checkpoints

SMS = (86, 120)
CONTEXT = 400

pytestmark = [pytest.mark.slow, needs_rtx]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_engines(family: str, precision: str, tmp_path: Path, export_bundle: Any) -> None:
    if family == "fast_vlm" and not checkpoints.TIMM:
        pytest.skip("timm and torchvision are not installed")
    checkpoint = getattr(checkpoints, family)(tmp_path / family)
    bundle = export_bundle(checkpoint, precision=precision, target="tensorrt-rtx", max_context=CONTEXT)
    compile_bundle(CompileOptions(bundle=bundle, target="tensorrt-rtx", compute_capabilities=SMS))
    engines = {engine.graph: engine for engine in Bundle.open(bundle).manifest.engines}  # every digest
    assert tuple(engines) == GRAPHS
    for engine in engines.values():
        assert engine.compute_capabilities == SMS
        assert (bundle / engine.file).stat().st_size > 1000
