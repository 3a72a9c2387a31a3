"""KV-cache tensors of onnxruntime graphs: in host memory for the CPU, on the device for CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevlm_runtime.engines.base import Array


class HostCache:
    """A cache tensor in host memory."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.address: int = array.ctypes.data

    def host(self) -> Array:
        """The memory itself."""
        return self.array

    def write(self, rows: Array) -> None:
        """See `Cache.write`."""
        self.array[:, :, : rows.shape[2]] = rows

    def bind(self, binding: Any, input_name: str, output_name: str) -> None:
        """Tie both names to the array's address."""
        place = ("cpu", 0, self.array.dtype.type, self.shape, self.address)
        binding.bind_input(input_name, *place)
        binding.bind_output(output_name, *place)


class DeviceCache:
    """A cache tensor in device memory (not run on a GPU by this project's tests)."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.address: int = value.data_ptr()

    def host(self) -> Array:
        """A copy."""
        copy: Array = self.value.numpy()
        return copy

    def write(self, rows: Array) -> None:
        """See `Cache.write`."""
        whole = np.zeros(self.shape, rows.dtype)
        whole[:, :, : rows.shape[2]] = rows
        self.value.update_inplace(whole)

    def bind(self, binding: Any, input_name: str, output_name: str) -> None:
        """Tie both names to the device buffer."""
        binding.bind_ortvalue_input(input_name, self.value)
        binding.bind_ortvalue_output(output_name, self.value)
