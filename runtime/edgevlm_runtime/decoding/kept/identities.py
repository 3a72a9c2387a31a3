"""What stands at each position of a sequence, as one number: how a KV cache knows that a prompt begins as it does.

Text is its token. Images are compared by the image they stand for, not by the placeholder token, which is the same for
every image: a negative number for each image and row. Of an image in tiles it is one for each tile and row, so that a
prompt whose picture changed in its third tile begins as the one before it up to there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.text.layout import ImagePart, Prompt

Ids = NDArray[np.int64]
_BITS = 32
UNKNOWN = 1 << 20
"""Number of an image or tile that is not there."""


def identify(prompt: Prompt, number_of: Callable[[str], int]) -> Ids:
    """One number for each position of `prompt`; `number_of` gives an image's or a tile's number by its key."""
    found = prompt.token_ids.copy()
    for span in prompt.images:
        parts = prompt.parts(span.image) or (ImagePart(prompt.image_keys[span.image], span.row + span.length),)
        first = 0
        for part in parts:
            begin, end = max(first, span.row), min(first + part.rows, span.row + span.length)
            if begin < end:
                rows = np.arange(begin - first, end - first, dtype=np.int64)
                place = span.start - span.row
                found[place + begin : place + end] = -1 - rows - (number_of(part.key) << _BITS)
            first += part.rows
    return found


def image_numbers(found: Ids) -> list[int]:
    """Numbers of the images and tiles in it, in order."""
    numbers = (-1 - found[found < 0]) >> _BITS
    return list(dict.fromkeys(numbers.tolist()))


def renumbered(found: Ids, numbers: dict[int, int]) -> Ids:
    """The same with other numbers for its images."""
    result = found.copy()
    for old, new in numbers.items():
        here = (found < 0) & ((-1 - found) >> _BITS == old)
        result[here] = found[here] + (old - new << _BITS)
    return result
