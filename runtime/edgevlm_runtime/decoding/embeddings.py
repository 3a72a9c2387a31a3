"""Token embeddings, read row by row from the bundle's memory-mapped weights and widened to float32.

The table is never loaded: a prompt touches the pages of its own tokens. How rows are stored is data in the manifest;
each kind has a reader in `READERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.decoder_info import EmbeddingTable
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError, PromptError

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]


class RowReader(Protocol):
    """Reads rows of one table. Safe from any thread."""

    def __call__(self, ids: Ids) -> Rows:
        """Rows `ids` [n], float32 [n, hidden]."""
        ...


def map_part(file: Path, offset: int, stored: str, shape: tuple[int, ...]) -> Array:
    """A read-only view of part of a file. Raises `BundleError` when the part does not lie within the file."""
    end = offset + math.prod(shape) * np.dtype(stored).itemsize
    size = file.stat().st_size
    if offset < 0 or min(shape) < 1 or end > size:
        raise BundleError(f"embedding table ends at byte {end} of {file}, which has {size}: export the model again")
    mapped = np.memmap(file, dtype=stored, mode="r", offset=offset, shape=shape)
    return np.asarray(mapped)  # a plain view: memmap's own indexing is slow


class FloatRows:
    """Rows of floating-point values, each as it is stored."""

    def __init__(self, stored: str, widen: Callable[[Array], Rows], file: Path, table: EmbeddingTable) -> None:
        self._widen = widen
        self._rows = map_part(file, table.offset, stored, table.shape)

    def __call__(self, ids: Ids) -> Rows:
        return self._widen(self._rows[ids])


def _widen_bfloat16(rows: Array) -> Rows:
    """bfloat16 is the upper half of float32."""
    return (rows.astype(np.uint32) << 16).view(np.float32)


class BlockRows:
    """Rows of integers in blocks, (quant - zero) * scale: the bytes of a block-quantized LM head, or made like them."""

    def __init__(self, bits: int, file: Path, table: EmbeddingTable) -> None:
        if table.block < 1 or table.scales_offset is None:
            raise BundleError(f"embedding table of {file.parent} names no scales: export the model again")
        if table.block * bits % 8:
            raise BundleError(f"embedding table of {file.parent} has blocks of {table.block}: export the model again")
        vocab, self._hidden = table.shape
        self._bits = bits
        self._block = table.block
        self._blocks = -(-self._hidden // table.block)
        self._rows = map_part(file, table.offset, "u1", (vocab, self._blocks, table.block * bits // 8))
        self._scales = map_part(file, table.scales_offset, "<f4", (vocab, self._blocks))
        self._zeros: Array | None = None
        if table.zero_points_offset is not None:
            self._zeros = map_part(file, table.zero_points_offset, "u1", (vocab, -(-self._blocks * bits // 8)))

    def __call__(self, ids: Ids) -> Rows:
        values = self._unpack(self._rows[ids]).astype(np.float32)
        if self._zeros is None:
            values -= 1 << (self._bits - 1)
        else:
            values -= self._unpack(self._zeros[ids])[..., : self._blocks, None]
        values *= self._scales[ids][..., None]
        return values.reshape(len(ids), self._blocks * self._block)[:, : self._hidden]  # ids may be none: no -1

    def _unpack(self, stored: Array) -> Array:
        """Two values per byte, the first in the low half, where there are four bits."""
        if self._bits == 8:
            return stored
        return np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:-1], 2 * stored.shape[-1])


READERS: dict[str, Callable[[Path, EmbeddingTable], RowReader]] = {
    "float32": lambda file, table: FloatRows("<f4", lambda rows: rows.astype(np.float32), file, table),
    "float16": lambda file, table: FloatRows("<f2", lambda rows: rows.astype(np.float32), file, table),
    "bfloat16": lambda file, table: FloatRows("<u2", _widen_bfloat16, file, table),
    "uint8": lambda file, table: BlockRows(8, file, table),
    "uint4": lambda file, table: BlockRows(4, file, table),
}
"""`EmbeddingTable.dtype` to its reader."""


class Table:
    """One table [vocab, width] with its scale. Reading is safe from any thread."""

    def __init__(self, bundle: Bundle, table: EmbeddingTable) -> None:
        """Map the table. Raises `BundleError` when the manifest's description does not fit the file."""
        if table.dtype not in READERS:
            raise BundleError(f"unknown embedding dtype {table.dtype!r} in {bundle.path}: upgrade edgevlm-runtime")
        self._scale = np.float32(table.scale)
        self.vocab = table.shape[0]
        self._read = READERS[table.dtype](bundle.file(table.file), table)

    def gather(self, token_ids: Ids, out: Rows) -> None:
        """Write rows `token_ids` [n] into `out` [n, width]. Raises `PromptError` for an unknown id."""
        if token_ids.size:
            self._check(int(token_ids.min()), int(token_ids.max()))
        np.multiply(self._read(token_ids), self._scale, out=out)

    def one(self, token_id: int, out: Rows) -> None:
        """Write the row of one generated token into `out` [width]. Raises as `gather` does: a graph may have more
        logits than a table has rows."""
        self._check(token_id, token_id)
        np.multiply(self._read(np.array([token_id]))[0], self._scale, out=out)

    def _check(self, least: int, most: int) -> None:
        if least < 0 or most >= self.vocab:
            raise PromptError(f"token id outside the vocabulary of {self.vocab}: is this the model's own tokenizer?")


class TokenEmbeddings:
    """All that tokens are looked up in: the embeddings [vocab, hidden], and a table for each of the decoder's further
    columns. Reading is safe from any thread."""

    def __init__(self, bundle: Bundle) -> None:
        """Map the tables. Raises `BundleError` when the manifest's description does not fit the file."""
        info = bundle.manifest.decoder
        self._table = Table(bundle, info.embedding)
        self._columns = tuple((columns, Table(bundle, columns.table)) for columns in info.token_columns)
        self._stand_ins = info.stand_ins
        self.vocab, self.hidden = info.embedding.shape
        if self.hidden != bundle.manifest.decoder.hidden_size:
            raise BundleError(
                f"embeddings of {bundle.path} have width {self.hidden}, "
                f"the decoder {bundle.manifest.decoder.hidden_size}: export the model again"
            )

    def gather(self, token_ids: NDArray[np.int64], out: Rows) -> None:
        """Write the embeddings of `token_ids` [n] into `out` [n, hidden]. Raises `PromptError` for an unknown id."""
        self._table.gather(self._looked_up(token_ids), out)

    def one(self, token_id: int, out: Rows) -> None:
        """Write the embedding of one generated token into `out` [hidden]."""
        self._table.one(self._stand_ins.get(token_id, token_id), out)

    def gather_columns(self, token_ids: NDArray[np.int64], out: Rows) -> None:
        """Write what `token_ids` [n] bring beside their embeddings into `out` [n, width of all `token_columns`]. Raises
        `PromptError` for an unknown id."""
        first, token_ids = 0, self._looked_up(token_ids)
        for columns, table in self._columns:
            last = first + columns.width
            table.gather(token_ids, out[:, first:last])
            first = last

    def one_columns(self, token_id: int, out: Sequence[Rows]) -> None:
        """Likewise for one generated token, into an array [width] for each of `token_columns`."""
        for (_, table), row in zip(self._columns, out, strict=True):
            table.one(self._stand_ins.get(token_id, token_id), row)

    def _looked_up(self, token_ids: Ids) -> Ids:
        """The rows that tokens have."""
        rows = token_ids
        for token, row in self._stand_ins.items():
            rows = np.where(token_ids == token, row, rows)
        return rows
