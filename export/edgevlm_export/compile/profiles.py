"""Which shapes an engine is compiled for: every free dimension has a name, and the manifest gives each name a range.

A decoder has two profiles, one for a prompt's chunks and one for single tokens, so that decoding runs kernels made for
one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.errors import ExportError

Shape = tuple[int, ...]


def apply(module: Any, builder: Any, config: Any, network: Any, wanted: Sequence[Profile]) -> tuple[Profile, ...]:
    """Give the builder its profiles; returns those it has: none for a graph of fixed shapes.

    Raises `ExportError` for a dimension without a range, or one the library refuses.
    """
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return ()
    if not wanted:
        raise ExportError(
            f"input {dynamic[0].name} has a free dimension, and the bundle names no profiles: export the model again"
        )
    for one in wanted:
        profile = builder.create_optimization_profile()
        for tensor in dynamic:
            profile.set_shape(tensor.name, *shapes(tensor, one))
        if config.add_optimization_profile(profile) < 0:
            raise ExportError(f"{module.__name__} refuses the {one.name} profile: {one.sizes}")
    return tuple(wanted)


def shapes(tensor: Any, profile: Profile) -> tuple[Shape, Shape, Shape]:
    """Smallest, likeliest and largest shape of a network input. Raises `ExportError`."""
    ranges: list[tuple[int, int, int]] = []
    for place, size in enumerate(tuple(tensor.shape)):
        name = str(tensor.get_dimension_name(place))
        if size >= 0:
            ranges.append((size, size, size))
        elif name in profile.sizes:
            ranges.append(profile.sizes[name])
        else:
            raise ExportError(
                f"input {tensor.name}: the {profile.name} profile has no range for its dimension {name!r}: "
                "export the model again"
            )
    smallest, likeliest, largest = zip(*ranges, strict=True)
    return smallest, likeliest, largest
