"""The GPU of this machine, for targets that build for it alone."""

from __future__ import annotations

from edgevlm_export.compile.modules import Compiler
from edgevlm_runtime.engines.nvidia.cuda import Device
from edgevlm_runtime.errors import ExportError, ProviderError


def compute_capability(target: Compiler) -> int:
    """Of the first GPU, 87 for SM 8.7. Raises `ExportError` where CUDA or a GPU is missing."""
    try:
        return Device.first().compute_capability
    except ProviderError as error:
        raise ExportError(f"{target.name} builds for the GPU of this machine: {error}") from error
