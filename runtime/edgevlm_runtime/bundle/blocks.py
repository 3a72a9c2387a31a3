"""Matrices of integers in blocks, memory-mapped from a bundle's files, and what they are in 8 bits.

Neighbouring values of a row share a scale and, where there are zero points, one of these: (quant - zero) * scale. Four
bits lie two in a byte, the first in the low half. So are the weights of `int4` and `int8b` stored, tables of token
embeddings among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.decoder_info import EmbeddingTable
from edgevlm_runtime.bundle.manifest import WidenedWeight
from edgevlm_runtime.errors import BundleError

Array = NDArray[Any]
LIMIT = 127
"""Values in 8 bits are symmetric: -127..127."""
TOGETHER = 2**16
"""Values that are widened at once: they stay in the processor's cache."""


def map_part(file: Path, offset: int, stored: str, shape: tuple[int, ...]) -> Array:
    """A read-only view of part of a file. Raises `BundleError` when the part does not lie within the file."""
    end = offset + math.prod(shape) * np.dtype(stored).itemsize
    size = file.stat().st_size
    if offset < 0 or min(shape) < 1 or end > size:
        raise BundleError(f"embedding table ends at byte {end} of {file}, which has {size}: export the model again")
    mapped = np.memmap(file, dtype=stored, mode="r", offset=offset, shape=shape)
    return np.asarray(mapped)  # a plain view: memmap's own indexing is slow


class Blocks:
    """The integers of one matrix, as they lie in the file. Reading is safe from any thread."""

    def __init__(self, bits: int, file: Path, table: EmbeddingTable) -> None:
        """Map them. Raises `BundleError` when the description does not fit the file."""
        if table.block < 1 or table.scales_offset is None:
            raise BundleError(f"embedding table of {file.parent} names no scales: export the model again")
        if table.block * bits % 8:
            raise BundleError(f"embedding table of {file.parent} has blocks of {table.block}: export the model again")
        self.rows, self.columns = table.shape
        self._bits = bits
        self._block = table.block
        self._blocks = -(-self.columns // table.block)
        self.stored = self._blocks * table.block
        """Values of a row with its padding."""
        self._quants = map_part(file, table.offset, "u1", (self.rows, self._blocks, table.block * bits // 8))
        self._scales = map_part(file, table.scales_offset, "<f4", (self.rows, self._blocks))
        self._zeros: Array | None = None
        if table.zero_points_offset is not None:
            self._zeros = map_part(file, table.zero_points_offset, "u1", (self.rows, -(-self._blocks * bits // 8)))

    def floats(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Some rows as float32 [n, columns]."""
        values = self._around_zero(rows)
        values *= self._scales[rows][..., None]
        return values.reshape(len(values), self._blocks * self._block)[:, : self.columns]  # may be none: no -1

    def widen(self, rows: slice, mixed: int, quants: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Some rows in 8 bits with one scale each, rounded to the nearest value: into `quants` [columns, n] and
        `scales` [n]. `mixed`: see `WidenedWeight`."""
        values = np.ascontiguousarray(self.floats(rows).T)
        if mixed:
            mix(values, mixed)
        np.divide(np.maximum(values.max(0), -values.min(0)), LIMIT, out=scales)
        scales[scales < np.finfo(np.float32).tiny] = 1
        values /= scales
        quants[:] = np.rint(values, out=values)

    def _around_zero(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """float32 [n, blocks, block], not yet scaled."""
        values = self._unpack(self._quants[rows]).astype(np.float32)
        if self._zeros is None:
            values -= 1 << (self._bits - 1)
        else:
            values -= self._unpack(self._zeros[rows])[..., : self._blocks, None]
        return values

    def _unpack(self, stored: Array) -> Array:
        if self._bits == 8:
            return stored
        both = np.empty((*stored.shape, 2), np.uint8)
        np.bitwise_and(stored, 15, out=both[..., 0])
        np.right_shift(stored, 4, out=both[..., 1])
        return both.reshape(*stored.shape[:-1], 2 * stored.shape[-1])


BITS = {"uint8": 8, "uint4": 4}
"""`EmbeddingTable.dtype` of integers in blocks."""
MIXED = tuple(1 << power for power in range(11))
"""How many neighbouring values of a row may be mixed together."""


def mix(values: NDArray[np.float32], order: int) -> None:
    """Multiply every `order` neighbours along the first axis of `values` [rows, n] by Sylvester's Hadamard matrix of
    that order, a power of two, scaled to be orthogonal. In place, by its butterflies, which keep to the thread that
    asks."""
    size = 1
    while size < order:
        pairs = values.reshape(-1, 2, size * values.shape[1])
        sums = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = sums
        size *= 2
    values *= np.float32(1 / math.sqrt(order))


def widen(
    weights: Iterable[WidenedWeight], where: Callable[[str], Path], threads: int
) -> dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Weights [out, in] in 8 bits as `DynamicQuantizeMatMul` takes them, by name: int8 [in, out], and float32 [out],
    the scale of each output. `where`: the file of a name.

    Raises `BundleError` when a description does not fit its file.
    """
    made: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    parts: list[tuple[Blocks, slice, int, NDArray[np.int8], NDArray[np.float32]]] = []
    for weight in weights:
        table = weight.blocks
        if table.dtype not in BITS:
            raise BundleError(f"unknown type {table.dtype!r} of {weight.name}: upgrade edgevlm-runtime")
        blocks = Blocks(BITS[table.dtype], where(table.file), table)
        quants = np.empty((blocks.columns, blocks.rows), np.int8)
        scales = np.empty(blocks.rows, np.float32)
        made[weight.name] = quants, scales
        step = max(1, TOGETHER // blocks.stored)
        starts = range(0, blocks.rows, step)
        slices = (slice(start, min(start + step, blocks.rows)) for start in starts)
        parts += [(blocks, rows, weight.mixed, quants, scales) for rows in slices]

    def work(part: tuple[Blocks, slice, int, NDArray[np.int8], NDArray[np.float32]]) -> None:
        blocks, rows, mixed, quants, scales = part
        blocks.widen(rows, mixed, quants[:, rows], scales[rows])

    with ThreadPoolExecutor(max_workers=threads or None) as pool:
        for _ in pool.map(work, parts):
            pass
    return made
