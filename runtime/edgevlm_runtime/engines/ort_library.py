"""onnxruntime: this is the only place that imports it. Importing `edgevlm_runtime` has switched its reports off."""

from __future__ import annotations

from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.installing import pip_install

try:
    import onnxruntime as ort
except ImportError as _error:  # the extras are exclusive: both wheels own the same files
    raise ProviderError(
        f"onnxruntime is not installed: {pip_install('onnxruntime')} (or onnxruntime-gpu for NVIDIA, never both)"
    ) from _error

__all__ = ["ort"]
