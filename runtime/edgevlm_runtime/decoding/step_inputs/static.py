"""Those of a cache with a fixed length T, written by TensorScatter and read through a mask: standard ONNX operators.

write_indices    int64 [1]            past: where the S new tokens go
position_ids     int64 [1, S]         past .. past + S - 1, where the positions scheme makes none
attention_mask   bool  [1, 1, S, T]   what each new token sees: itself and what is before it, within the window
                                      (`StepInputs.masks` names every mask input with its window)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError


class Inputs:
    """See the module's docstring."""

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
