"""M-RoPE positions of Qwen2-VL and Qwen2.5-VL: one number each for time, row and column.

Text counts all three up by one a token. An image's tokens share one time, the position p where the image begins, and
lie at p + row and p + column; the text after it goes on at p + max(rows, columns). This is `get_rope_index` of
transformers for still images, and, after the prompt, its `rope_deltas`.

Feeds `position_ids`: int64 [3, 1, tokens].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.decoding.positions.base import ImageSpan, SequenceLayout
from edgevlm_runtime.errors import PromptError


class Positions:
    """See the module's docstring."""

    def feeds(self, layout: SequenceLayout, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """Raises `PromptError` for an image whose run of tokens is not its whole grid."""
        # Text first, everywhere; then the images over it.
        positions = np.tile(np.arange(start, stop, dtype=np.int64), (3, 1))
        for span in layout.images:
            if span.start >= stop:
                break
            rows, columns = _grid(span)
            if span.stop > start:
                base = int(span.start + _shift(layout, span))
                inside = slice(max(span.start, start) - start, min(span.stop, stop) - start)
                cells = np.arange(max(span.start, start) - span.start, min(span.stop, stop) - span.start)
                positions[:, inside] = base + np.stack([np.zeros_like(cells), cells // columns, cells % columns])
            after = max(span.stop, start) - start
            positions[:, after:] += max(rows, columns) - span.length
        return {"position_ids": positions[:, None, :]}


def _shift(layout: SequenceLayout, span: ImageSpan) -> int:
    """How far positions are from token numbers when `span` begins, because of the images before it."""
    return sum(max(_grid(image)) - image.length for image in layout.images if image.start < span.start)


def _grid(span: ImageSpan) -> tuple[int, int]:
    if span.grid is None or span.row != 0 or span.grid[0] * span.grid[1] != span.length:
        raise PromptError(
            f"image {span.image + 1} has {span.length} tokens together in the prompt, which is not its grid "
            f"{span.grid}: M-RoPE needs each image's tokens side by side"
        )
    return span.grid
