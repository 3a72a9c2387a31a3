"""What a family hands to the tracer: a module with named inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

Forwards = tuple[tuple[type[nn.Module], Callable[..., torch.Tensor]], ...]
"""Classes of modules, each with what is called in place of its forward, with the module first."""
Dim = int | str
"""A fixed size, or the name of a dynamic one."""
Range = tuple[int, int, int]
"""Smallest, usual and largest size of a dynamic dimension."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a graph."""

    name: str
    dtype: torch.dtype
    shape: tuple[Dim, ...]

    def example(self, sizes: Mapping[str, int]) -> torch.Tensor:
        """A zero tensor with every dynamic dimension at its sample size."""
        return torch.zeros([sizes[dim] if isinstance(dim, str) else dim for dim in self.shape], dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class GraphSource:
    """One graph to be traced.

    `module.forward` takes the inputs in order and returns the outputs in order. `sizes` gives each dynamic dimension
    a sample size of at least 2 (1 would be baked in as a constant).
    """

    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    rotary: str = "inside"
    """Where the decoder's rotary embedding is applied: see `neutral.ROTARY`."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Sizes of dynamic dimensions in a dialect that makes them static."""
    forwards: Forwards = ()
    """What modules of the model that are traced here do in place of their own forward: see `Family.forwards`."""
    masks: Mapping[str, int] = field(default_factory=dict)
    """Of a decoder whose tokens see later ones: its mask inputs, each with the window of its layers (0 is none)."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Of dynamic dimensions that `edgevlm_export.planning.profiles` does not know, for engines built ahead of time."""


def over_pixels(module: nn.Module, height: int, width: int, count: str = "images") -> GraphSource:
    """A vision encoder over pictures of one size: `pixels` uint8 [count, height, width, 3] to `image_features`."""
    return GraphSource(
        module=module,
        inputs=(Port("pixels", torch.uint8, (count, height, width, 3)),),
        outputs=("image_features",),
        sizes={count: 2},
    )
