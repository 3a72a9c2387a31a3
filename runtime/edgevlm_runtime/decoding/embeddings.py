"""Token embeddings, read row by row from the bundle's memory-mapped weights.

The table is never loaded: a prompt touches the pages of its own tokens. How rows are held is data in the manifest;
each kind has a reader in `edgevlm_runtime.decoding.embedding_rows.READERS`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.decoding.embedding_rows import READERS, Rows
from edgevlm_runtime.errors import BundleError, PromptError

__all__ = ["Rows", "TokenEmbeddings"]


class TokenEmbeddings:
    """The embedding table [vocab, hidden]. Reading is safe from any thread."""

    def __init__(self, bundle: Bundle) -> None:
        """Map the table. Raises `BundleError` when the manifest's description does not fit the file."""
        table = bundle.manifest.decoder.embedding
        if table.dtype not in READERS:
            raise BundleError(f"unknown embedding dtype {table.dtype!r} in {bundle.path}: upgrade edgevlm-runtime")
        self._scale = np.float32(table.scale)
        self.vocab, self.hidden = table.shape
        self._read = READERS[table.dtype](bundle.file(table.file), table)
        if self.hidden != bundle.manifest.decoder.hidden_size:
            raise BundleError(
                f"embeddings of {bundle.path} have width {self.hidden}, "
                f"the decoder {bundle.manifest.decoder.hidden_size}: export the model again"
            )

    def gather(self, token_ids: NDArray[np.int64], out: Rows) -> None:
        """Write the embeddings of `token_ids` [n] into `out` [n, hidden]. Raises `PromptError` for an unknown id."""
        if token_ids.size and not (int(token_ids.min()) >= 0 and int(token_ids.max()) < self.vocab):
            raise PromptError(f"token id outside the vocabulary of {self.vocab}: is this the model's own tokenizer?")
        np.multiply(self._read(token_ids), self._scale, out=out)

    def one(self, token_id: int, out: Rows) -> None:
        """Write the embedding of one generated token into `out` [hidden]."""
        np.multiply(self._read(np.array([token_id]))[0], self._scale, out=out)
