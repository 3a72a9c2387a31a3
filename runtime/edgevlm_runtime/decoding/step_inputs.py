"""What a decoder graph is told about its cache at each run, by the kind the manifest names (`StepInputs.kind`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError


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


class InPlace:
    """GroupQueryAttention's inputs: a cache of any length, updated in place.

    seqlens_k               int32 [1]   past + S - 1
    total_sequence_length   int32 []    past + S
    """

    names = ("seqlens_k", "total_sequence_length")

    def __init__(self, info: StepInputs, cache_rows: int | None) -> None:
        pass

    def feeds(self, past: int, positions: int) -> Mapping[str, Array]:
        """See `CacheInputs.feeds`."""
        total = past + positions
        return {
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
        }


class Static:
    """Inputs of a cache with a fixed length T, written by TensorScatter and read through a mask: standard operators.

    write_indices    int64 [1]            past: where the S new tokens go
    position_ids     int64 [1, S]         past .. past + S - 1, where the positions scheme makes none
    attention_mask   bool  [1, 1, S, T]   what each new token sees: itself and what is before it, within the window
                                          (`StepInputs.masks` names every mask input with its window)
    """

    def __init__(self, info: StepInputs, cache_rows: int | None) -> None:
        """Raises `BundleError` for a graph without a fixed cache length."""
        if cache_rows is None or not info.masks:
            raise BundleError("the decoder graph fixes no cache length, or names no mask: export the model again")
        self.names: tuple[str, ...] = ("write_indices", *info.masks)
        self._masks = dict(info.masks)
        self._slots = np.arange(cache_rows)

    def feeds(self, past: int, positions: int) -> Mapping[str, Array]:
        """See `CacheInputs.feeds`."""
        places = np.arange(past, past + positions, dtype=np.int64)
        feeds: dict[str, Array] = {"write_indices": places[:1], "position_ids": places[None]}
        for name, window in self._masks.items():
            feeds[name] = self._mask(places, window)[None, None]
        return feeds

    def _mask(self, places: NDArray[np.int64], window: int) -> NDArray[np.bool_]:
        """bool [S, T]: token at place p sees slots p - window + 1 .. p; all up to p where the window is 0."""
        seen: NDArray[np.bool_] = self._slots <= places[:, None]
        if window:
            seen &= self._slots > places[:, None] - window
        return seen


KINDS: dict[str, Callable[[StepInputs, int | None], CacheInputs]] = {"in_place": InPlace, "static": Static}
"""`StepInputs.kind` to what makes the inputs."""


def make_step_inputs(info: StepInputs, cache_rows: int | None) -> CacheInputs:
    """The inputs that `info` names. `cache_rows`: the cache's length where the graph fixes it.

    Raises `BundleError` for a kind that this runtime does not know, or a graph that is not of this kind.
    """
    if info.kind not in KINDS:
        raise BundleError(f"unknown decoder inputs in the bundle: '{info.kind}': upgrade edgevlm-runtime")
    return KINDS[info.kind](info, cache_rows)
