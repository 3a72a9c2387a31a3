"""A compiled engine's inputs, outputs and profiles, as the rest of the runtime speaks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevlm_runtime.engines.base import Port
from edgevlm_runtime.errors import BundleError, EdgeVLMError

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProfileRange:
    """One optimization profile: smallest and largest shape of every input."""

    index: int
    smallest: Mapping[str, Shape]
    largest: Mapping[str, Shape]

    def takes(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a run with these input shapes is within it."""
        return all(_within(self.smallest[name], shape, self.largest[name]) for name, shape in shapes.items())

    @property
    def extent(self) -> int:
        """Elements of all its largest inputs: the narrower of two profiles has fewer."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.largest.values())


def _within(smallest: Shape, shape: Shape, largest: Shape) -> bool:
    pairs = zip(smallest, shape, largest, strict=False)
    return len(shape) == len(largest) and all(low <= size <= high for low, size, high in pairs)


def read_ports(module: Any, engine: Any, name: str) -> tuple[dict[str, Port], dict[str, Port]]:
    """Inputs and outputs of an engine. Raises `BundleError` for a type that numpy has not."""
    inputs: dict[str, Port] = {}
    outputs: dict[str, Port] = {}
    for i in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(i)
        kind = engine.get_tensor_dtype(tensor).name
        if kind not in _DTYPES:
            raise BundleError(f"{name}: {tensor} holds {kind}, which the runtime cannot feed: export the model again")
        if engine.get_tensor_location(tensor) != module.TensorLocation.DEVICE:
            raise BundleError(f"{name}: {tensor} must be in host memory, which no graph of ours needs: export again")
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(tensor))
        ports = inputs if engine.get_tensor_mode(tensor) == module.TensorIOMode.INPUT else outputs
        ports[tensor] = Port(tensor, np.dtype(_DTYPES[kind]), shape)
    return inputs, outputs


def read_profiles(engine: Any, inputs: Mapping[str, Port]) -> tuple[ProfileRange, ...]:
    """The engine's profiles, the narrowest first, so that the first one that takes a run is the one made for it."""
    found = []
    for index in range(engine.num_optimization_profiles):
        shapes = {name: engine.get_tensor_profile_shape(name, index) for name in inputs}
        found.append(
            ProfileRange(
                index,
                {name: tuple(int(size) for size in smallest) for name, (smallest, _, _) in shapes.items()},
                {name: tuple(int(size) for size in largest) for name, (_, _, largest) in shapes.items()},
            )
        )
    return tuple(sorted(found, key=lambda profile: profile.extent))


def choose_profile(profiles: tuple[ProfileRange, ...], shapes: Mapping[str, Shape], name: str) -> ProfileRange:
    """The narrowest profile that takes a run with these shapes. Raises `EdgeVLMError` where none does."""
    for profile in profiles:
        if profile.takes(shapes):
            return profile
    widest = profiles[-1]
    wrong = next((tensor for tensor, shape in shapes.items() if not widest.takes({tensor: shape})), next(iter(shapes)))
    raise EdgeVLMError(
        f"{name} was compiled for {wrong} from {list(widest.smallest[wrong])} to {list(widest.largest[wrong])}, "
        f"not {list(shapes[wrong])}: load with a smaller prefill_chunk or vision_batch, or export for such shapes"
    )
