"""GroupQueryAttention's: a cache of any length, updated in place.

seqlens_k               int32 [1]   past + S - 1
total_sequence_length   int32 []    past + S
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.engines.base import Array


class Inputs:
    """See the module's docstring."""

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
