"""Linear positions: token i is at position i.

The decoder's GroupQueryAttention derives them from the cache's length, so nothing is fed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.decoding.positions.base import SequenceLayout


class Positions:
    """See the module's docstring."""

    def feeds(self, layout: SequenceLayout, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        return {}
