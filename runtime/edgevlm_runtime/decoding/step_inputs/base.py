"""The interface of a decoder graph's inputs about its cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgevlm_runtime.engines.base import Array


class CacheInputs(Protocol):
    """Makes the inputs that tell a decoder graph where it is in the cache. Stateless: safe from any thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """Inputs that the graph must have."""
        ...

    def feeds(self, past: int, positions: int) -> Mapping[str, Array]:
        """Inputs of a run that appends `positions` tokens to a cache that holds `past`.

        Shapes depend on `positions` alone. An input that the graph lacks, or that the positions scheme makes, is
        ignored.
        """
        ...
