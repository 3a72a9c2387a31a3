"""How many pixels an image may have, decoded or on its way through a resize.

A thin strip of an image can ask for a resize of many gigabytes (1 x 20,000 pixels with its short edge brought to 336);
on a small machine that is the end of the process, so it is refused beforehand.
"""

from __future__ import annotations

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.options import MAX_PIXELS


def check_pixels(width: int, height: int, what: str, limit: int = MAX_PIXELS) -> None:
    """Raise `ImageError` when `what` has, or would have, more than `limit` pixels."""
    if width * height > limit:
        raise ImageError(
            f"too many pixels to process safely ({width} x {height}, limit {limit}): {what}: give a smaller image"
        )


def check_resize(size: tuple[int, int], target: tuple[int, int]) -> None:
    """Refuse a resize of an image of `size` to `target` (both width, height) that is empty or needs too much memory."""
    if min(target) <= 0:
        raise ImageError(f"the image is too thin to resize ({size[0]} x {size[1]} pixels): crop or pad it first")
    check_pixels(*target, f"resize of an image of {size[0]} x {size[1]} pixels")
