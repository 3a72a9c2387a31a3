"""Position ids for the decoder, by the scheme the manifest names (`DecoderInfo.positions`).

    positions = make_positions(manifest.decoder.positions)
    feeds = positions.feeds(prompt.images, start, stop)     # decoder inputs for tokens start..stop of the sequence

`start..stop` may be any part of the sequence, beyond the prompt too: prefill of a whole prompt is (0, n), prefill after
a reused prefix of p tokens is (p, n), a decode step is (n, n + 1). The same token always gets the same position.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import BundleError, PromptError
from edgevlm_runtime.registry import Registry
from edgevlm_runtime.text.layout import ImageSpan, ImageSpans


class PositionScheme(Protocol):
    """How position ids are made."""

    def feeds(self, images: ImageSpans, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """Decoder inputs by name for tokens `start` to `stop` (exclusive) of a sequence with `images` in it."""
        ...


class Linear:
    """Token i is at position i. The decoder's GroupQueryAttention counts by itself, so nothing is fed."""

    def feeds(self, images: ImageSpans, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """See `PositionScheme.feeds`."""
        return {}


class MRope:
    """M-RoPE positions of Qwen2-VL and Qwen2.5-VL: one number each for time, row and column.

    Text counts all three up by one per token. An image's tokens share one time, the position p where the image begins,
    and lie at p + row and p + column; the text after it goes on at p + max(rows, columns). This is `get_rope_index` of
    transformers for still images, and, after the prompt, its `rope_deltas`.

    Feeds `position_ids`: int64 [3, 1, tokens].
    """

    def feeds(self, images: ImageSpans, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """See `PositionScheme.feeds`. Raises `PromptError` for an image whose run of tokens is not its whole grid."""
        # Text first, everywhere; then the images over it.
        positions = np.tile(np.arange(start, stop, dtype=np.int64), (3, 1))
        for span in images:
            if span.start >= stop:
                break
            rows, columns = _grid(span)
            if span.stop > start:
                base = int(span.start + _shift(images, span))
                inside = slice(max(span.start, start) - start, min(span.stop, stop) - start)
                cells = np.arange(max(span.start, start) - span.start, min(span.stop, stop) - span.start)
                positions[:, inside] = base + np.stack([np.zeros_like(cells), cells // columns, cells % columns])
            after = max(span.stop, start) - start
            positions[:, after:] += max(rows, columns) - span.length
        return {"position_ids": positions[:, None, :]}


SCHEMES = Registry(
    "unknown position scheme in the bundle",
    {"linear": Linear, "mrope": MRope},
    BundleError,
    advice="upgrade edgevlm-runtime",
)
"""`DecoderInfo.positions` to its scheme."""


def make_positions(name: str) -> PositionScheme:
    """The scheme with this name. Raises `BundleError` when this runtime does not know it."""
    made: PositionScheme = SCHEMES.get(name)()
    return made


def _shift(images: ImageSpans, span: ImageSpan) -> int:
    """How far positions are from token numbers when `span` begins, because of the images before it."""
    return sum(max(_grid(image)) - image.length for image in images if image.start < span.start)


def _grid(span: ImageSpan) -> tuple[int, int]:
    if span.grid is None or span.row != 0 or span.grid[0] * span.grid[1] != span.length:
        raise PromptError(
            f"image {span.image + 1} has {span.length} tokens together in the prompt, which is not its grid "
            f"{span.grid}: M-RoPE needs each image's tokens side by side"
        )
    return span.grid
