"""Which tokens see which: every token sees those before it, and within a block also those after it.

A block is a run of positions that attend to each other in both directions, as an image's tokens do in Gemma 3 (in its
sliding layers within the window) and in Gemma 4's sliding layers, and a whole prompt does in PaliGemma. Keys and values
within a block depend on all of it, so a block is computed in one run of the graph, and is reused whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.registry import Registry
from edgevlm_runtime.text.layout import Prompt

Blocks = tuple[tuple[int, int], ...]
"""First position of each block and the position after its last, in order."""


def causal(prompt: Prompt) -> Blocks:
    """No token sees a later one."""
    return ()


def images(prompt: Prompt) -> Blocks:
    """The tokens of one image, where they stand side by side, see each other."""
    return tuple((span.start, span.stop) for span in prompt.images)


def prefix(prompt: Prompt) -> Blocks:
    """All tokens of the prompt see each other (a prefix language model, Raffel et al. 2020); those generated do not."""
    return ((0, len(prompt)),) if len(prompt) else ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which tokens of a prompt see later ones."""

    blocks: Callable[[Prompt], Blocks]
    """The blocks of a prompt."""
    windows_hold: bool = True
    """Whether a layer's sliding window hides a block's own tokens as well, those that lie before the window; otherwise
    a token sees all of its block in every layer."""
    everywhere: bool = True
    """Whether layers without a window have blocks too; otherwise they are causal."""


PATTERNS = Registry(
    "unknown attention pattern in the bundle",
    {
        "causal": Pattern(causal),
        "images": Pattern(images),
        "images_in_windows": Pattern(images, everywhere=False),
        "prefix": Pattern(prefix, windows_hold=False),
    },
    BundleError,
    advice="upgrade edgevlm-runtime",
)
"""`DecoderInfo.attention` to the pattern."""


def get_pattern(name: str) -> Pattern:
    """The pattern with this name. Raises `BundleError` when this runtime does not know it."""
    found: Pattern = PATTERNS.get(name)
    return found


def reusable(length: int, blocks: Blocks) -> int:
    """How many of the first `length` positions have keys and values that nothing after `length` can change."""
    return next((start for start, stop in blocks if start < length < stop), length)


def chunks(start: int, stop: int, most: int, blocks: Blocks = ()) -> Iterator[tuple[int, int]]:
    """Positions start..stop in as few parts of at most `most` as there can be, all nearly of one length.

    No part ends within a block: parts are then as long as they can be, and a longer block is a part by itself.
    """
    if not blocks:
        count = -(-(stop - start) // most)
        yield from pairwise(start + (stop - start) * part // max(count, 1) for part in range(count + 1))
        return
    while start < stop:
        cut = reusable(min(start + most, stop), blocks)
        if cut <= start:
            cut = next(end for first, end in blocks if first == start)
        yield start, cut
        start = cut
