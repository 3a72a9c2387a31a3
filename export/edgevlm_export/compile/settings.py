"""The builder's settings: GPUs, workspace, progress, timing cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edgevlm_export.compile.options import CompileOptions
from edgevlm_runtime.errors import EdgeVLMError, ExportError, reason
from edgevlm_runtime.saving import write_atomic

log = logging.getLogger(__name__)

MIB = 1 << 20


def make_config(module: Any, builder: Any, options: CompileOptions, monitor: Any) -> Any:
    """A builder config. Raises `ExportError` for a compute capability the library does not know."""
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.resolved.ahead_of_time:
        _set_compute_capabilities(module, config, options.sms)
    if options.timing_cache is not None:
        _attach_timing_cache(config, options.timing_cache)
    return config


def save_timing_cache(config: Any, file: Path) -> None:
    """Write what the builder measured; where that is not possible, a warning: the engine is built all the same."""
    try:
        write_atomic(file, bytes(memoryview(config.get_timing_cache().serialize())))
    except EdgeVLMError as error:
        log.warning("the timing cache is not kept: %s", error)


def _set_compute_capabilities(module: Any, config: Any, sms: tuple[int, ...]) -> None:
    known = {
        name.removeprefix("SM"): value
        for name, value in module.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    unknown = [sm for sm in sms if str(sm) not in known]
    if unknown:
        raise ExportError(
            f"{module.__name__} {module.__version__} does not compile for SM {unknown[0]}: it knows {', '.join(known)}"
        )
    config.num_compute_capabilities = len(sms)
    for place, sm in enumerate(sms):
        if not config.set_compute_capability(known[str(sm)], place):
            raise ExportError(f"{module.__name__} refuses SM {sm} beside {sms}: compile for it alone")


def _attach_timing_cache(config: Any, file: Path) -> None:
    try:
        timings = file.read_bytes() if file.is_file() else b""
    except OSError as error:
        raise ExportError(f"cannot read the timing cache: {file}: {reason(error)}") from error
    if not config.set_timing_cache(config.create_timing_cache(timings), False):
        raise ExportError(f"the timing cache is of another GPU or version: {file}: remove it, or name another file")
