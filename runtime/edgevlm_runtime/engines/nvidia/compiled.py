"""One deserialized engine: its ports and profiles, the scratch memory its contexts share, the lock around runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgevlm_runtime.engines.base import Port
from edgevlm_runtime.engines.nvidia.cuda import Buffer, Device
from edgevlm_runtime.engines.nvidia.ports import read_ports, read_profiles
from edgevlm_runtime.errors import BundleError, EdgeVLMError


class CompiledEngine:
    """What graph and bindings share. Runs take turns (`lock`): all contexts use one scratch buffer, as large as the
    hungriest profile needs."""

    def __init__(
        self, module: Any, engine: Any, name: str, device: Device, logger: Any, *, cuda_graph: bool = False
    ) -> None:
        """`cuda_graph`: replay the narrowest profile (a decoding step) as one CUDA graph."""
        self.name = name
        self.device = device
        self.lock = threading.Lock()
        self._module = module
        self._engine = engine
        self._logger = logger
        self._cuda_graph = cuda_graph
        inputs, outputs = read_ports(module, engine, name)
        self.inputs: Mapping[str, Port] = MappingProxyType(inputs)
        self.outputs: Mapping[str, Port] = MappingProxyType(outputs)
        self.profiles = read_profiles(engine, inputs)
        self._scratch: Buffer | None = None

    @property
    def records(self) -> bool:
        """Whether this runtime records CUDA graphs itself; TensorRT-RTX does it inside."""
        return self._cuda_graph and not hasattr(self._module, "CudaGraphStrategy")

    def new_context(self, profile: int) -> Any:
        """An execution context of one profile, on the shared scratch memory. Call it with `lock` held."""
        context = self._create_context()
        if context is None or not context.set_optimization_profile_async(profile, self.device.stream):
            raise EdgeVLMError(f"{self.name}: no execution context for profile {profile}: {self.first_error()}")
        if self._scratch is None:
            sizes = [self._engine.get_device_memory_size_for_profile_v2(one.index) for one in self.profiles]
            self._scratch = self.device.allocate(int(max(sizes)), f"the scratch memory of {self.name}")
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        return context

    def check_in_place(self, input_name: str, output_name: str) -> None:
        """Raise `BundleError` when the engine writes this output elsewhere than over that input."""
        if not hasattr(self._engine, "get_aliased_input_tensor"):
            return  # a library that cannot tell; the dialect writes with TensorScatter, which is in place
        aliased = self._engine.get_aliased_input_tensor(output_name)
        if aliased != input_name:
            raise BundleError(
                f"{self.name} does not update {input_name} in place ({output_name} belongs to {aliased or 'none'}): "
                "export and compile the model again"
            )

    def first_error(self) -> str:
        """What the library complained about first."""
        return str(self._logger.first_error())

    def _create_context(self) -> Any:
        managed = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not (self._cuda_graph and hasattr(self._module, "CudaGraphStrategy")):
            return self._engine.create_execution_context(managed)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(managed)
        config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)
