"""One graph to one engine."""

from __future__ import annotations

import gc
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevlm_export.compile import network as networks
from edgevlm_export.compile import profiles
from edgevlm_export.compile.messages import MemoryFigures
from edgevlm_export.compile.modules import make_builder
from edgevlm_export.compile.monitor import make_monitor
from edgevlm_export.compile.options import CompileOptions
from edgevlm_export.compile.settings import make_config, save_timing_cache
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.bundle.manifest import FileRecord, GraphInfo
from edgevlm_runtime.engines.nvidia.messages import make_logger
from edgevlm_runtime.errors import ExportError, reason

if TYPE_CHECKING:
    from edgevlm_export.planning.plan import Progress  # which imports torch


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine file and what there is to say about it."""

    record: FileRecord
    """Its digest and size."""
    profiles: tuple[Profile, ...]
    """What sizes it is fast for, in the engine's own order; none for a graph of fixed shapes."""
    device_memory_bytes: int | None
    """What the builder says a run needs beside weights, inputs and outputs; None where it does not say."""
    weight_bytes: int | None
    """Size of the weights in it; None where the builder does not say."""
    seconds: float
    """How long it took to build."""


def build_engine(
    module: Any, options: CompileOptions, graph: str, info: GraphInfo, output: Path, progress: Progress
) -> BuiltEngine:
    """Compile `graph` of the bundle and write the engine to `output`.

    Raises `ExportError`, for a disk or memory that is too small as well, and `KeyboardInterrupt`.
    """
    try:
        return _build(module, options, graph, info, output, progress)
    except MemoryError as error:  # std::bad_alloc, too
        raise ExportError(out_of_memory(options, graph)) from error
    except OSError as error:
        why = error.strerror or reason(error)
        raise ExportError(f"cannot write the engine of the {graph}: {why}: make room on the bundle's disk") from error


def _build(
    module: Any, options: CompileOptions, graph: str, info: GraphInfo, output: Path, progress: Progress
) -> BuiltEngine:
    start = time.monotonic()
    memory = MemoryFigures()
    logger = make_logger(module, memory)
    monitor = make_monitor(module, progress, f"compiling {graph}")
    file = options.bundle / info.file
    builder = make_builder(options.resolved, module, logger)
    network, parser = networks.parse(module, builder, logger, file)
    config = make_config(module, builder, options, monitor)
    made = profiles.apply(module, builder, config, network, info.profiles)
    engine = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        raise ExportError(_failure(module, options, graph, logger, memory))
    record = _write(engine, output)
    if options.timing_cache is not None:
        save_timing_cache(config, options.timing_cache)
    del engine, config, network, parser, builder
    gc.collect()  # weights of one graph are gone before the next one is parsed
    return BuiltEngine(
        record,
        made,
        memory.found.get("device_memory_bytes"),
        memory.found.get("weight_bytes"),
        time.monotonic() - start,
    )


def _write(engine: Any, output: Path) -> FileRecord:
    data = memoryview(engine)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(data)
    return FileRecord(hashlib.sha256(data).hexdigest(), data.nbytes)


def _failure(module: Any, options: CompileOptions, graph: str, logger: Any, memory: MemoryFigures) -> str:
    if memory.too_little:
        return out_of_memory(options, graph)
    said = logger.first_error() or "it does not say why"
    return f"{module.__name__} {module.__version__} cannot build the {graph}: {said}"


def out_of_memory(options: CompileOptions, graph: str) -> str:
    """The error line for a builder that found too little memory."""
    limit = "" if options.workspace_mib is None else f" of less than {options.workspace_mib} MiB"
    return (
        f"the builder ran out of memory while it compiled the {graph}: close other programs, compile with a "
        f"--workspace{limit}, or compile on a larger machine (tensorrt-rtx needs no GPU for it)"
    )
