"""Where images are in a token sequence, and what a position scheme gives the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """One run of image tokens: token `start + i` stands for row `row + i` of the embeddings of image `image`.

    An image is one run in most families, one run a tile where text stands between the tiles.
    """

    start: int
    """First token of the run in the sequence."""
    length: int
    """Tokens in the run."""
    image: int
    """Which of the prompt's images, from 0."""
    row: int = 0
    """Row of that image's embeddings (in prompt order) at `start`."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the image's tokens, where positions depend on them."""

    @property
    def stop(self) -> int:
        """The token after the run."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class SequenceLayout:
    """The image runs of a sequence, in order; every other token is text."""

    images: tuple[ImageSpan, ...] = ()


class PositionScheme(Protocol):
    """How position ids are made."""

    def feeds(self, layout: SequenceLayout, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        """Decoder inputs by name for tokens `start` to `stop` (exclusive) of a sequence laid out as `layout`."""
        ...
