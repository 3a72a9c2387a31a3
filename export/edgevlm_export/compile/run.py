"""Compile every graph of a bundle; the bundle gets its engines all at once, or stays as it was."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevlm_export.compile.build import BuiltEngine, build_engine
from edgevlm_export.compile.gpu import compute_capability
from edgevlm_export.compile.isolated import build_isolated
from edgevlm_export.compile.modules import load_module
from edgevlm_export.compile.options import CompileOptions
from edgevlm_export.planning.plan import GRAPHS, Progress
from edgevlm_export.writing.bundle import write_manifest
from edgevlm_export.writing.output import Place, reserve
from edgevlm_runtime.bundle.engine_info import EngineInfo, this_platform
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME, Manifest
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.saving import check_file

FOLDER = "engines"
STANDARD = "static"
"""The kind of step inputs that graphs of standard ONNX operators have."""


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What was compiled, and what it took."""

    bundle: Path
    """The folder."""
    target: str
    """"tensorrt" or "tensorrt-rtx"."""
    module_version: str
    """Version of the library that compiled; another one refuses the engines."""
    compute_capabilities: tuple[int, ...]
    """GPUs that the engines run on: 86 stands for SM 8.6."""
    engines: Mapping[str, BuiltEngine]
    """By graph."""
    seconds: float
    """How long it took."""


def _no_progress(stage: str, done: int, total: int) -> None:
    """The default: silence."""


def compile_bundle(options: CompileOptions, progress: Progress = _no_progress) -> CompileReport:
    """Compile the three graphs for `options.target` and put the engines into the bundle, in place of older ones of that
    target. Any failure leaves the bundle as it was.

    Raises `BundleError` for a bundle that cannot be used, `ExportError` for a library or GPU that is missing, a graph
    that cannot be compiled, a disk that cannot hold the engines.
    """
    start = time.monotonic()
    folder = options.bundle.resolve()
    if options.timing_cache is not None:
        check_file(options.timing_cache, force=True)
    module = load_module(options.resolved)
    with reserve(folder, force=True) as place:
        manifest = Bundle.open(folder).manifest
        check_dialect(manifest, options.target)
        sms = options.sms or (compute_capability(options.resolved),)
        built = _fill(module, replace(options, bundle=folder), place, manifest, sms, progress)
    return CompileReport(folder, options.target, module.__version__, sms, built, time.monotonic() - start)


def _fill(
    module: Any, options: CompileOptions, place: Place, manifest: Manifest, sms: tuple[int, ...], progress: Progress
) -> Mapping[str, BuiltEngine]:
    """Build the engines and put a bundle that has them in the place of the one without."""
    with place.filled() as partial:
        engines = partial / FOLDER / options.target
        built = {graph: _build(module, options, graph, manifest, engines, progress) for graph in GRAPHS}
        compiled = _with_engines(manifest, options.target, _infos(module, options.target, sms, built), built)
        _take_over(options.bundle, partial, compiled)
        write_manifest(partial, compiled)
    return built


def _build(
    module: Any, options: CompileOptions, graph: str, manifest: Manifest, place: Path, progress: Progress
) -> BuiltEngine:
    """On the GPU at hand a build measures kernels, and is never the same twice: no process of its own is needed."""
    output = place / f"{graph}.engine"
    if options.resolved.ahead_of_time:
        return build_isolated(options, graph, manifest.graphs[graph], output, progress)
    return build_engine(module, options, graph, manifest.graphs[graph], output, progress)


def check_dialect(manifest: Manifest, target: str) -> None:
    """Raise `ExportError` for graphs in ONNX Runtime's own operators, which no other engine reads."""
    if manifest.decoder.step_inputs.kind != STANDARD:
        raise ExportError(
            f"this bundle's graphs are for ONNX Runtime: export the model with --target {target}, then compile that"
        )


def engine_file(target: str, graph: str) -> str:
    """Where an engine lies in its bundle."""
    return f"{FOLDER}/{target}/{graph}.engine"


def _infos(module: Any, target: str, sms: tuple[int, ...], built: Mapping[str, BuiltEngine]) -> tuple[EngineInfo, ...]:
    return tuple(
        EngineInfo(
            graph=graph,
            target=target,
            file=engine_file(target, graph),
            module_version=str(module.__version__),
            compute_capabilities=sms,
            platform=this_platform(),
            profiles=engine.profiles,
            device_memory_bytes=engine.device_memory_bytes,
            weight_bytes=engine.weight_bytes,
        )
        for graph, engine in built.items()
    )


def _with_engines(
    manifest: Manifest, target: str, infos: tuple[EngineInfo, ...], built: Mapping[str, BuiltEngine]
) -> Manifest:
    """The manifest with these engines in place of the target's older ones."""
    gone = {engine.file for engine in manifest.engines if engine.target == target}
    files = {name: record for name, record in manifest.files.items() if name not in gone}
    files |= {info.file: built[info.graph].record for info in infos}
    kept = tuple(engine for engine in manifest.engines if engine.target != target)
    return replace(manifest, engines=(*kept, *infos), files=files)


def _take_over(folder: Path, partial: Path, manifest: Manifest) -> None:
    """The bundle's other files, as links to the same bytes where the disk can (no copy of gigabytes)."""
    own = {MANIFEST_NAME, MANIFEST_DIGEST_NAME}
    for name in manifest.files:
        target = partial / name
        if name in own or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, target)
        except OSError:
            shutil.copy2(folder / name, target)
