"""A prompt as the decoder takes it: its tokens, and where images stand among them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """One run of image tokens: token `start + i` stands for row `row + i` of the embeddings of image `image`.

    An image is one run in most families, and one run per tile where text stands between the tiles.
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


ImageSpans = tuple[ImageSpan, ...]
"""The image runs of a sequence, in order; every other token is text."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as a tokenizer took it; with `letters`, one whose control tokens have secret names (`text.letters`)."""

    text: str = ""
    letters: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: its tokens, where the images are among them, and which images they are."""

    token_ids: NDArray[np.int64]
    """[S], image tokens included."""
    images: ImageSpans = ()
    text: str = ""
    """What was tokenized, as people read it."""
    image_keys: tuple[str, ...] = ()
    """Identity of each image, by number (`vision.encoder.ImageEncoder.key`); what a KV cache recognises it by."""
    source: TokenizedText = field(default_factory=TokenizedText)
    """What was tokenized, for more text to be tokenized behind it."""

    def __len__(self) -> int:
        return int(self.token_ids.size)

    def image_stop(self, image: int) -> int:
        """Position after the last token of an image; 0 for one that is not there."""
        return max((span.stop for span in self.images if span.image == image), default=0)
