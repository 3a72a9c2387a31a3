"""onnxruntime: this is the only place that imports it. Importing `edgevlm_runtime` has switched its reports off."""

from __future__ import annotations

from edgevlm_runtime.errors import ProviderError

try:
    import onnxruntime as ort
except ImportError as _error:  # the extras are exclusive: both wheels own the same files
    raise ProviderError(
        "onnxruntime is not installed: pip install 'edgevlm-runtime[cpu]' (or 'edgevlm-runtime[gpu]' for NVIDIA)"
    ) from _error

__all__ = ["ort"]
