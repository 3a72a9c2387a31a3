"""Pages of mapped files, given back when they have been read.

They count as this process's memory although the system can take them at any time; a bound on memory that is measured,
or set for a container, is kept by giving them back at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")
_DONTNEED = 4
"""MADV_DONTNEED: of a mapped file the pages are read again when they are looked at again; other memory is lost."""


@dataclass(frozen=True, slots=True)
class MappedFiles:
    """Where files were mapped into this process."""

    ranges: tuple[tuple[int, int], ...]
    """Addresses, in order; none where the system does not tell."""

    @classmethod
    def now(cls) -> MappedFiles:
        """Those of this moment, without libraries that may be written to while they run (permission `x` apart)."""
        ranges: list[tuple[int, int]] = []
        with contextlib.suppress(OSError, ValueError):
            for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
                place, _, _, _, _, *path = line.split(maxsplit=5)
                if path and path[0].startswith("/") and not path[0].startswith("/dev/") and "(deleted)" not in path[0]:
                    start, _, stop = place.partition("-")
                    ranges.append((int(start, 16), int(stop, 16)))
        return cls(tuple(sorted(ranges)))

    def give_back(self, tensor: Tensor) -> None:
        """Drop the whole pages of a contiguous tensor that lies in a mapped file and was not changed; else nothing."""
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        place = bisect_right(self.ranges, (start, 2**64)) - 1
        if not tensor.is_contiguous() or place < 0 or stop > self.ranges[place][1]:
            return
        start, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DONTNEED)
