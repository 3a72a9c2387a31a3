"""Buffers tied to a compiled graph: host arrays are copied to and from the GPU at each run, caches stay there."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevlm_runtime.engines.base import Array, Cache
from edgevlm_runtime.engines.nvidia.compiled import CompiledEngine
from edgevlm_runtime.engines.nvidia.cuda import Buffer, DeviceCache
from edgevlm_runtime.engines.nvidia.ports import Shape, choose_profile
from edgevlm_runtime.engines.nvidia.replay import Replay
from edgevlm_runtime.errors import BundleError, EdgeVLMError


class TensorRTBinding:
    """See `edgevlm_runtime.engines.base.Binding`. For one thread at a time."""

    def __init__(self, compiled: CompiledEngine) -> None:
        self._compiled = compiled
        self._device = compiled.device
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        self._caches: dict[str, DeviceCache] = {}
        self._staged: dict[str, Buffer] = {}
        """Device copies of host inputs and outputs; they only grow, so that addresses rarely change."""
        self._shapes: dict[str, Shape] = {}
        """Of the last run's outputs."""
        self._contexts: dict[int, Any] = {}
        self._replay = Replay(compiled.device) if compiled.records else None

    def bind_input(self, name: str, array: Array) -> None:
        """See `Binding.bind_input`. Contents are read at each run."""
        self._inputs[name] = _checked(name, array, self._compiled.inputs[name].dtype)

    def bind_output(self, name: str, array: Array) -> None:
        """See `Binding.bind_output`. Outputs that are not bound stay on the GPU."""
        self._outputs[name] = _checked(name, array, self._compiled.outputs[name].dtype)

    def bind_cache(self, input_name: str, output_name: str, cache: Cache) -> None:
        """See `Binding.bind_cache`: both names get one device address.

        Raises `BundleError` when the engine does not update this input in place.
        """
        if not isinstance(cache, DeviceCache):
            raise TypeError(f"cache of another engine: {type(cache).__name__}")
        self._compiled.check_in_place(input_name, output_name)
        self._caches[input_name] = self._caches[output_name] = cache

    def run(self) -> None:
        """See `Binding.run`: upload, compute, download, wait."""
        with self._compiled.lock:
            shapes = {name: array.shape for name, array in self._inputs.items()}
            profile = choose_profile(self._compiled.profiles, {**shapes, **self._cache_shapes()}, self._compiled.name)
            context = self._context(profile.index)
            for name, array in self._inputs.items():
                if None in self._compiled.inputs[name].shape:
                    self._need(context.set_input_shape(name, array.shape), f"refuses {name} of shape {array.shape}")
                self._device.upload(self._stage(name, array.nbytes).address, array)
            addresses = self._addresses(context)
            for name, address in addresses.items():
                self._need(context.set_tensor_address(name, address), f"refuses the address of {name}")
            self._enqueue(profile.index, context, (tuple(shapes.items()), tuple(addresses.items())))
            for name, array in self._outputs.items():
                self._device.download(array, addresses[name])
            self._device.synchronize()

    def _enqueue(self, profile: int, context: Any, key: tuple[object, ...]) -> None:
        def execute() -> None:
            self._need(context.execute_async_v3(self._device.stream), "failed")

        if self._replay is not None and profile == self._compiled.profiles[0].index:
            self._replay.run((profile, *key), context, execute)
        else:
            execute()

    def _addresses(self, context: Any) -> dict[str, int]:
        """Where every input and output lies; memory for outputs that nobody asked for as well."""
        found = {name: cache.address for name, cache in self._caches.items()}
        missing = [name for name in self._compiled.inputs if name not in self._inputs and name not in found]
        if missing:
            raise EdgeVLMError(f"{self._compiled.name}: input {missing[0]} is not bound")
        found |= {name: self._staged[name].address for name in self._inputs}
        for name, port in self._compiled.outputs.items():
            if name in found:
                continue
            shape = tuple(int(size) for size in context.get_tensor_shape(name))
            if name in self._outputs and self._outputs[name].shape != shape:
                raise EdgeVLMError(
                    f"{self._compiled.name} gives {name} of shape {list(shape)}, not {list(self._outputs[name].shape)}"
                )
            self._shapes[name] = shape
            nbytes = int(np.prod(shape, dtype=np.int64)) * port.dtype.itemsize
            found[name] = self._stage(name, nbytes).address
        return found

    def fetch(self, name: str) -> Array:
        """A copy of an output of the last run."""
        array: Array = np.empty(self._shapes[name], self._compiled.outputs[name].dtype)
        self._device.download(array, self._staged[name].address)
        self._device.synchronize()
        return array

    def _stage(self, name: str, nbytes: int) -> Buffer:
        buffer = self._staged.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            buffer = self._staged[name] = self._device.allocate(nbytes, f"{name} of {self._compiled.name}")
        return buffer

    def _context(self, profile: int) -> Any:
        context = self._contexts.get(profile)
        if context is None:
            context = self._contexts[profile] = self._compiled.new_context(profile)
        return context

    def _cache_shapes(self) -> dict[str, Shape]:
        return {name: cache.shape for name, cache in self._caches.items() if name in self._compiled.inputs}

    def _need(self, done: bool, what: str) -> None:
        if not done:
            said = self._compiled.first_error()
            raise EdgeVLMError(f"{self._compiled.name} {what}{f': {said}' if said else ''}")


def _checked(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    if not array.flags.c_contiguous:
        raise ValueError(f"buffer for {name} must be C-contiguous")
    if array.dtype != dtype:
        raise BundleError(f"{name} is {array.dtype}, the engine takes {dtype}: export the model again")
    return array
