"""TensorRT-RTX: engines compiled ahead of time (`edgevlm compile BUNDLE --target tensorrt-rtx`). Not run on a GPU by
this project's tests."""

from __future__ import annotations

from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.engines.nvidia import engine
from edgevlm_runtime.engines.nvidia.library import TENSORRT_RTX
from edgevlm_runtime.options import RuntimeOptions


def make_engine(options: RuntimeOptions) -> Engine:
    """Raises `ProviderError` where the library, CUDA or the GPU is missing."""
    return engine.make(options, TENSORRT_RTX)
