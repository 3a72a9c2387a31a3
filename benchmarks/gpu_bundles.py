"""Checkpoints, bundles and engines that `benchmarks.gpu` measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.folders import ensure

MODELS = {"inspector": False, "clip-l-336-qwen2-0.5b": True}
"""Model to whether it is a shape of `benchmarks.shapes`, with random weights."""


def source_of(model: str, work: Path) -> str:
    """Alias or folder of a model's checkpoint, which is made where it has to be."""
    if not MODELS[model]:
        return model
    from benchmarks.shapes import make_checkpoint

    return str(ensure(work / model, lambda folder: make_checkpoint(folder, model)))


def export_bundle(source: str, model: str, precision: str, target: str, work: Path) -> Path:
    """The bundle of one precision and target. Raises `ExportError`."""
    from edgevlm_export.api import ExportOptions, export

    folder = work / f"{model}-{precision}-{target}"
    if not folder.exists():
        options = ExportOptions(
            source, folder, precision, target=target, self_test=False, certificate=False, max_context=2048
        )
        export(options)
    return folder


def compile_engines(bundle: Path, sm: int) -> dict[str, Any]:
    """For this GPU where the library knows it; its refusal is a result."""
    from edgevlm_export.compile.options import CompileOptions
    from edgevlm_export.compile.run import compile_bundle

    report = compile_bundle(CompileOptions(bundle=bundle, target="tensorrt-rtx", compute_capabilities=(sm,)))
    return {"seconds": report.seconds, "version": report.module_version}
