"""Token embeddings, read row by row from the bundle's memory-mapped weights and widened to float32.

The table is never loaded: a prompt touches the pages of its own tokens. How rows are stored is data in the manifest;
each kind has a reader in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.blocks import BITS, Blocks, map_part
from edgevlm_runtime.bundle.decoder_info import EmbeddingTable
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError, PromptError

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]


class RowReader(Protocol):
    """Reads rows of one table. Safe from any thread."""

    def __call__(self, ids: Ids, /) -> Rows:
        """Rows `ids` [n], float32 [n, hidden]."""
        ...


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


def _block_rows(bits: int, file: Path, table: EmbeddingTable) -> RowReader:
    """The bytes of a block-quantized LM head, or made like them."""
    return Blocks(bits, file, table).floats


READERS: dict[str, Callable[[Path, EmbeddingTable], RowReader]] = {
    "float32": lambda file, table: FloatRows("<f4", lambda rows: rows.astype(np.float32), file, table),
    "float16": lambda file, table: FloatRows("<f2", lambda rows: rows.astype(np.float32), file, table),
    "bfloat16": lambda file, table: FloatRows("<u2", _widen_bfloat16, file, table),
    **{dtype: partial(_block_rows, bits) for dtype, bits in BITS.items()},
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
