"""What to compile, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgevlm_export.compile.modules import Compiler, get_compiler
from edgevlm_runtime.errors import ExportError

RTX_DEFAULT = (86, 89, 120)
"""Consumer and workstation GPUs that TensorRT-RTX compiles for when none is named: Ampere, Ada, Blackwell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Raises `ExportError` for values that mean nothing."""

    bundle: Path
    target: str
    compute_capabilities: tuple[int, ...] = ()
    """86 for SM 8.6; none takes `RTX_DEFAULT`, or the GPU at hand where the target builds for that alone."""
    workspace_mib: int | None = None
    """Scratch memory a kernel may ask for, at most; None leaves it to the builder."""
    timing_cache: Path | None = None
    """File of kernel timings, read and written, where the target has one."""

    def __post_init__(self) -> None:
        target = get_compiler(self.target)
        if self.compute_capabilities and not target.ahead_of_time:
            raise ExportError(f"{self.target} builds for the GPU of this machine: leave out --sm")
        if any(not 50 <= sm < 1000 for sm in self.compute_capabilities):
            raise ExportError(f"bad compute capability: {self.compute_capabilities}: write SM 8.6 as 86")
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise ExportError(f"a compute capability is named twice: {self.compute_capabilities}")
        if self.timing_cache is not None and not target.timing_cache:
            raise ExportError(f"{self.target} measures nothing while it builds: leave out --timing-cache")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ExportError(f"bad workspace: {self.workspace_mib} MiB: it must be at least 1")

    @property
    def resolved(self) -> Compiler:
        """The library."""
        return get_compiler(self.target)

    @property
    def sms(self) -> tuple[int, ...]:
        """Compute capabilities in ascending order; empty where the GPU at hand decides."""
        chosen = self.compute_capabilities or (RTX_DEFAULT if self.resolved.ahead_of_time else ())
        return tuple(sorted(chosen))
