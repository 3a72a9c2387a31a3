"""A graph compiled by OpenVINO, as a graph of the runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from edgevlm_runtime.engines.base import Array, Binding, Cache, Port
from edgevlm_runtime.engines.intel.messages import said
from edgevlm_runtime.errors import EdgeVLMError


class OpenVINOGraph:
    """A compiled model. `run` may be called from any thread; runs take turns, each with all of the graph's threads."""

    def __init__(self, compiled: Any, name: str) -> None:
        self._name = name
        self._request = compiled.create_infer_request()
        self._turn = threading.Lock()
        self.inputs: Mapping[str, Port] = MappingProxyType({port.any_name: _port(port) for port in compiled.inputs})
        self.outputs: Mapping[str, Port] = MappingProxyType({port.any_name: _port(port) for port in compiled.outputs})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Graph.run`."""
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            with self._turn:
                found = self._request.infer(given, share_inputs=True, share_outputs=True)
                return {name: np.array(found[name]) for name in self.outputs}
        except Exception as error:  # its exceptions have no common base but RuntimeError, and its wrapper raises others
            raise EdgeVLMError(f"{self._name} failed: {said(error)}") from error

    def binding(self) -> Binding:
        """See `Graph.binding`: only a decoder needs one, which `OpenVINOEngine.load` refuses."""
        self._refuse()

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Cache:
        """See `Graph.allocate`; as `binding`."""
        del shape, dtype
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EdgeVLMError(f"{self._name}: openvino keeps no KV cache: use --engine ort for this graph")


def _port(port: Any) -> Port:
    shape = tuple(int(size.get_length()) if size.is_static else None for size in port.partial_shape)
    return Port(port.any_name, np.dtype(port.element_type.to_dtype()), shape)
