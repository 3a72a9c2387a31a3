"""A compiled graph as the rest of the runtime sees it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from edgevlm_runtime.engines.base import Array, Binding, Cache, Port
from edgevlm_runtime.engines.nvidia.binding import TensorRTBinding
from edgevlm_runtime.engines.nvidia.compiled import CompiledEngine
from edgevlm_runtime.engines.nvidia.cuda import DeviceCache
from edgevlm_runtime.errors import EdgeVLMError


class TensorRTGraph:
    """See `edgevlm_runtime.engines.base.Graph`."""

    def __init__(self, compiled: CompiledEngine) -> None:
        self._compiled = compiled
        self.inputs: Mapping[str, Port] = compiled.inputs
        self.outputs: Mapping[str, Port] = compiled.outputs
        self._own: TensorRTBinding | None = None
        self._own_lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Graph.run`."""
        with self._own_lock:
            if self._own is None:
                self._own = TensorRTBinding(self._compiled)
            for name, array in feeds.items():
                if name not in self.inputs:
                    raise EdgeVLMError(
                        f"{self._compiled.name} has no input {name!r}: it takes {', '.join(self.inputs)}"
                    )
                self._own.bind_input(name, np.asarray(array, dtype=self.inputs[name].dtype, order="C"))
            self._own.run()
            return {name: self._own.fetch(name) for name in self.outputs}

    def binding(self) -> Binding:
        """See `Graph.binding`."""
        return TensorRTBinding(self._compiled)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Cache:
        """See `Graph.allocate`: device memory."""
        return DeviceCache(self._compiled.device, shape, np.dtype(dtype))
