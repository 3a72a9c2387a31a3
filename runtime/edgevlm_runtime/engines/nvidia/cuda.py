"""The GPU, its memory and a stream, through `cuda.bindings` (package cuda-python): no torch.

Nothing here has run on a GPU in this project's own tests, which put a stand-in in the place of `cuda.bindings`.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.engines.nvidia.library import import_or_explain
from edgevlm_runtime.errors import EdgeVLMError, ProviderError

PACKAGES = ("cuda-python",)
_MODULE = "cuda.bindings.runtime"
_MIB = 1 << 20


class Device:
    """The first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), with one stream."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        count = self._count()
        if count < 1:
            raise ProviderError("CUDA finds no GPU: install NVIDIA's driver, or run where there is one")
        kinds = runtime.cudaDeviceAttr
        major = self.call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self.call("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMinor, 0)
        self.compute_capability = 10 * int(major) + int(minor)
        """87 for SM 8.7."""
        self.name = _text(self.call("cudaGetDeviceProperties", 0).name)
        self.stream = int(self.call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking))

    @classmethod
    def first(cls) -> Device:
        """Raises `ProviderError` where `cuda.bindings`, the driver or the GPU is missing."""
        return cls(import_or_explain(_MODULE, PACKAGES))

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of CUDA's runtime; its result, or the first of several. Raises `EdgeVLMError`."""
        error, *values = getattr(self.runtime, function)(*arguments)
        if int(error) != 0:
            raise EdgeVLMError(f"CUDA: {function} failed: {self._error(error)}")
        return values[0] if values else None

    def allocate(self, nbytes: int, what: str) -> Buffer:
        """Device memory, freed with the object. Raises `EdgeVLMError` when there is not enough."""
        error, address = self.runtime.cudaMalloc(max(nbytes, 1))
        if int(error) != 0:
            raise EdgeVLMError(
                f"the GPU has no {nbytes / _MIB:.0f} MiB left for {what} ({self._error(error)}): "
                "close other programs, or export with a smaller --max-context"
            )
        return Buffer(self, int(address), nbytes)

    def upload(self, address: int, array: Array) -> None:
        """Host to device, in stream order; `array` is C-contiguous and unchanged until `synchronize`."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: Array, address: int) -> None:
        """Device to host, in stream order; there after `synchronize`."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def clear(self, buffer: Buffer) -> None:
        """Zeros, in stream order."""
        self.call("cudaMemsetAsync", buffer.address, 0, buffer.nbytes, self.stream)

    def synchronize(self) -> None:
        """Wait until everything in the stream is done. Raises `EdgeVLMError` for what failed in it."""
        self.call("cudaStreamSynchronize", self.stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        self.call("cudaMemcpyAsync", target, source, nbytes, getattr(self.runtime.cudaMemcpyKind, kind), self.stream)

    def _count(self) -> int:
        error, count = self.runtime.cudaGetDeviceCount()
        if int(error) != 0:
            raise ProviderError(f"CUDA finds no GPU ({self._error(error)}): install NVIDIA's driver")
        return int(count)

    def _error(self, error: Any) -> str:
        return _text(self.runtime.cudaGetErrorString(error)[1])


class Buffer:
    """A piece of device memory."""

    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes
        self._free = weakref.finalize(self, device.call, "cudaFree", address)

    def free(self) -> None:
        """Give it back now."""
        self._free()


class DeviceCache:
    """One layer's keys or values in device memory; see `edgevlm_runtime.engines.base.Cache`."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.shape = shape
        self.dtype = dtype
        self._device = device
        self._buffer = device.allocate(nbytes, "the KV cache")
        device.clear(self._buffer)
        device.synchronize()

    @property
    def address(self) -> int:
        """Where its first byte lies on the GPU."""
        return self._buffer.address

    def host(self) -> Array:
        """A copy."""
        copy: Array = np.empty(self.shape, self.dtype)
        self._device.download(copy, self.address)
        self._device.synchronize()
        return copy

    def write(self, rows: Array) -> None:
        """See `Cache.write`: the first positions of every head, a copy each."""
        heads = np.ascontiguousarray(rows, dtype=self.dtype)[0]
        stride = self.shape[2] * self.shape[3] * self.dtype.itemsize
        for number, head in enumerate(heads):
            self._device.upload(self.address + number * stride, head)
        self._device.synchronize()


def _text(name: Any) -> str:
    return name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name)
