"""What stands at each position of a sequence, as one number: how a KV cache knows that a prompt begins as it does.

Text is its token. Images are compared by the image they stand for, not by the placeholder token, which is the same for
every image: a negative number for each image and row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.text.layout import Prompt

Ids = NDArray[np.int64]
_BITS = 32


def identify(prompt: Prompt, number_of: Callable[[str], int]) -> Ids:
    """One number for each position of `prompt`; `number_of` gives an image's number by its key."""
    found = prompt.token_ids.copy()
    for span in prompt.images:
        rows = np.arange(span.row, span.row + span.length, dtype=np.int64)
        found[span.start : span.stop] = -1 - rows - (number_of(prompt.image_keys[span.image]) << _BITS)
    return found


def image_numbers(found: Ids) -> list[int]:
    """Numbers of the images in it, in order."""
    numbers = (-1 - found[found < 0]) >> _BITS
    return list(dict.fromkeys(numbers.tolist()))


def renumbered(found: Ids, numbers: dict[int, int]) -> Ids:
    """The same with other numbers for its images."""
    result = found.copy()
    for old, new in numbers.items():
        here = (found < 0) & ((-1 - found) >> _BITS == old)
        result[here] = found[here] + (old - new << _BITS)
    return result
