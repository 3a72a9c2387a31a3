"""Keys and values that come with the bundle: those of the tokens that its prompts begin with.

The exporter computed them with the PyTorch model in float32 (`edgevlm_export.steps.prefix`): a beginning-of-sequence
token, a system prompt, what the chat template writes before the first image. A KV cache that begins with them need not
run these tokens, and a quantized decoder attends to exact ones; the first tokens of a sequence are those that it
attends to most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.decoding.kv_cache import KVCache
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.reading import read_array, why


def common_prefix(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many numbers both begin with."""
    limit = min(one.size, other.size)
    differs = np.flatnonzero(one[:limit] != other[:limit])
    return int(differs[0]) if differs.size else limit


class BakedPrefix:
    """The known beginning of a prompt. Read-only: safe from any thread."""

    def __init__(self, token_ids: NDArray[np.int64], layers: Array) -> None:
        """`token_ids` [P]; `layers` [layers, 2, kv_heads, P, head_dim], keys before values, as a cache holds them."""
        self.token_ids = token_ids
        self._layers = layers

    @classmethod
    def load(cls, bundle: Bundle) -> BakedPrefix | None:
        """Map the bundle's prefix into memory; None where it has none.

        Raises `BundleError` when the file does not hold what the manifest says.
        """
        info = bundle.manifest.decoder.prefix
        if info is None:
            return None
        file = bundle.file(info.file)
        try:
            layers = read_array(file)
        except OSError as error:
            raise BundleError(
                f"cannot read the prompt's prefix: {file}: {why(error)}: export the model again"
            ) from error
        if (layers.shape, layers.dtype) != (info.shape, np.dtype(info.dtype)):
            raise BundleError(
                f"the prompt's prefix is {layers.dtype} {list(layers.shape)}, not {info.dtype} {list(info.shape)} as "
                f"the manifest says: {file}: export the model again"
            )
        return cls(np.array(info.token_ids, dtype=np.int64), layers)

    def shared(self, identities: NDArray[np.int64]) -> int:
        """How many tokens a prompt has in common with it, from the first on. `identities`: see `Context`."""
        return common_prefix(self.token_ids, identities)

    def copy(self, kv: KVCache, length: int) -> None:
        """Make `kv` hold the first `length` tokens, and nothing else."""
        kv.begin_with(self._layers, length)
