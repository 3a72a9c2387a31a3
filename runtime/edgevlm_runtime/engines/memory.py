"""Zeroed host memory that is committed only where it is written.

A KV cache is allocated for the whole context, of which most runs touch little. `numpy.zeros` asks for huge pages on
large arrays, which commits 2 MiB around every byte touched: with the cache's layout [1, kv_heads, tokens, head_dim],
most of the buffer. So the mapping is made here, with small pages.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np
from numpy.typing import DTypeLike

from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import EdgeVLMError


def lazy_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of zeros whose pages are committed when first written. Raises `EdgeVLMError` when refused."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    try:
        mapping = mmap.mmap(-1, max(size, 1))
    except (OSError, ValueError, OverflowError) as error:
        raise EdgeVLMError(
            f"cannot reserve {size / 2**20:.0f} MiB for the KV cache: {error}: load with a smaller max_context"
        ) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages has nothing to turn off
            mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapping, dtype=kind, count=size // kind.itemsize).reshape(shape)
