"""An onnxruntime session as a graph of the runtime, and its bindings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from edgevlm_runtime.engines.base import Array, Binding, Cache, Port
from edgevlm_runtime.engines.memory import lazy_zeros
from edgevlm_runtime.engines.ort_caches import DeviceCache, HostCache
from edgevlm_runtime.engines.ort_library import ort
from edgevlm_runtime.errors import EdgeVLMError, one_line

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class OrtGraph:
    """An onnxruntime session. `run` may be called from any thread."""

    def __init__(self, session: Any, name: str, device: str) -> None:
        self._session = session
        self._name = name
        self._device = device
        self.inputs: Mapping[str, Port] = MappingProxyType({port.name: _port(port) for port in session.get_inputs()})
        self.outputs: Mapping[str, Port] = MappingProxyType({port.name: _port(port) for port in session.get_outputs()})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Graph.run`."""
        names = list(self.outputs)
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise EdgeVLMError(f"{self._name} failed: {one_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def binding(self) -> Binding:
        """See `Graph.binding`."""
        return OrtBinding(self._session, self._name, self._device)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Cache:
        """See `Graph.allocate`: host memory for the CPU provider, device memory for CUDA's."""
        if self._device == "cpu":
            return HostCache(lazy_zeros(shape, dtype))
        zeros = lazy_zeros(shape, dtype)
        try:
            return DeviceCache(ort.OrtValue.ortvalue_from_numpy(zeros, self._device, 0))
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise EdgeVLMError(
                f"cannot reserve {zeros.nbytes / 2**20:.0f} MiB on {self._device} for the KV cache: {one_line(error)}: "
                "load with a smaller max_context"
            ) from error


class OrtBinding:
    """onnxruntime's IO binding over numpy buffers, by pointer: a run copies nothing in or out on the CPU.

    For a device, onnxruntime copies an input when it is bound, not when the graph runs (IOBinding::BindInput). Contents
    may change between runs here, so inputs are bound anew before each; outputs are copied back after each.
    """

    def __init__(self, session: Any, name: str, device: str = "cpu") -> None:
        self._session = session
        self._name = name
        self._on_device = device != "cpu"
        self._binding = session.io_binding()
        self._inputs: dict[str, Array] = {}
        self._alive: dict[str, object] = {}

    def bind_input(self, name: str, array: Array) -> None:
        """See `Binding.bind_input`."""
        _pointer(name, array)
        self._inputs[name] = array
        if not self._on_device:
            self._give(name, array)

    def bind_output(self, name: str, array: Array) -> None:
        """See `Binding.bind_output`."""
        self._alive[name] = array
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, _pointer(name, array))

    def bind_cache(self, input_name: str, output_name: str, cache: Cache) -> None:
        """See `Binding.bind_cache`."""
        if not isinstance(cache, (HostCache, DeviceCache)):
            raise TypeError(f"cache of another engine: {type(cache).__name__}")
        self._alive[input_name] = cache
        cache.bind(self._binding, input_name, output_name)

    def run(self) -> None:
        """See `Binding.run`."""
        try:
            if self._on_device:
                for name, array in self._inputs.items():
                    self._give(name, array)
                self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise EdgeVLMError(f"{self._name} failed: {one_line(error)}") from error

    def _give(self, name: str, array: Array) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _pointer(name: str, array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"buffer for {name} must be C-contiguous")
    return array.ctypes.data


def _port(node: Any) -> Port:
    return Port(node.name, np.dtype(_DTYPES.get(node.type, np.void)), tuple(node.shape))
