"""TensorRT: engines compiled on the GPU they run on (`edgevlm compile BUNDLE --target tensorrt`). Not run on a GPU by
this project's tests."""

from __future__ import annotations

from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.engines.nvidia import engine
from edgevlm_runtime.engines.nvidia.library import TENSORRT
from edgevlm_runtime.options import RuntimeOptions


def make_engine(options: RuntimeOptions) -> Engine:
    """Raises `ProviderError` where the library, CUDA or the GPU is missing."""
    return engine.make(options, TENSORRT)
