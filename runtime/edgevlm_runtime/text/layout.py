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


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A tile of an image, or a few that are encoded at once: what they are known by, and how many of the image's rows
    are theirs."""

    key: str
    rows: int


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
    """Identity of each image, by number (`vision.encoder.ImageEncoder.identify`); what a KV cache recognises it by."""
    image_parts: tuple[tuple[ImagePart, ...], ...] = ()
    """Of each image its tiles in prompt order, where a KV cache may recognise them one by one; none where it is known
    as a whole."""
    source: TokenizedText = field(default_factory=TokenizedText)
    """What was tokenized, for more text to be tokenized behind it."""

    def __len__(self) -> int:
        return int(self.token_ids.size)

    def parts(self, image: int) -> tuple[ImagePart, ...]:
        """The tiles that an image is recognised by; none where it is known as a whole."""
        return self.image_parts[image] if self.image_parts else ()

    @property
    def known_by(self) -> set[str]:
        """The keys of all images and tiles."""
        return {*self.image_keys, *(part.key for parts in self.image_parts for part in parts)}

    def image_stop(self, image: int) -> int:
        """Position after the last token of an image; 0 for one that is not there."""
        return max((span.stop for span in self.images if span.image == image), default=0)
