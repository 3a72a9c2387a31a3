"""The two libraries that compile engines: full TensorRT, and TensorRT-RTX. Same API, different reach.

TensorRT builds on the GPU that will run the engine. TensorRT-RTX compiles ahead of time on any x86-64 machine, for the
GPUs asked for, and finishes the job on the device when the engine is first used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgevlm_runtime.engines.nvidia.library import TENSORRT, TENSORRT_RTX, import_or_explain
from edgevlm_runtime.errors import ExportError, ProviderError, reason


@dataclass(frozen=True, slots=True)
class Compiler:
    """One library, which compiles for the target of its name."""

    name: str
    module: str
    packages: tuple[str, ...]
    """What to install."""
    ahead_of_time: bool
    """Whether it builds without the GPU, for GPUs named by compute capability."""
    timing_cache: bool
    """Whether it measures kernels while it builds, so that a cache of measurements saves time."""


COMPILERS: dict[str, Compiler] = {
    "tensorrt": Compiler("tensorrt", TENSORRT.module, TENSORRT.packages, False, True),
    "tensorrt-rtx": Compiler("tensorrt-rtx", TENSORRT_RTX.module, ("edgevlm-export[tensorrt-rtx]",), True, False),
}


def get_compiler(name: str) -> Compiler:
    """The target called `name`. Raises `ExportError`, naming those there are."""
    if name not in COMPILERS:
        raise ExportError(f"unknown target: {name}: known are {', '.join(COMPILERS)}")
    return COMPILERS[name]


def load_module(target: Compiler) -> Any:
    """Import the target's library. Raises `ExportError` with the pip line when it is missing or does not load."""
    try:
        return import_or_explain(target.module, target.packages)
    except ProviderError as error:
        raise ExportError(str(error)) from error


def make_builder(target: Compiler, module: Any, logger: Any) -> Any:
    """A builder. Raises `ExportError` where the library wants a GPU and there is none."""
    try:
        builder = module.Builder(logger)
    except (RuntimeError, TypeError) as error:  # pybind11 turns a null pointer into a TypeError
        raise ExportError(_no_builder(target, logger, reason(error))) from error
    if builder is None:
        raise ExportError(_no_builder(target, logger, "it gave no builder"))
    if target.ahead_of_time:
        builder.max_threads = 1  # see `isolated`
    return builder


def _no_builder(target: Compiler, logger: Any, why: str) -> str:
    said = logger.first_error() or why
    if target.ahead_of_time:
        return f"{target.module} {said}"
    return (
        f"{target.module} is installed and finds no GPU ({said}): it builds on the machine that runs the engine: "
        "compile there, or compile with --target tensorrt-rtx, which needs none"
    )
