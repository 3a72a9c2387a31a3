"""How many pixels an image may have, decoded or on its way through a resize, and how large a bundle may ask for.

A thin strip of an image can ask for a resize of many gigabytes (1 x 20,000 pixels with its short edge brought to 336);
on a small machine that is the end of the process, so it is refused beforehand.
"""

from __future__ import annotations

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.options import MAX_PIXELS

MAX_SIDE = 8192
"""Pixels along a side that a bundle may ask for: of an image, a tile, a patch. Its square is below `MAX_PIXELS`."""
MAX_TOKENS = 1 << 20
"""Image tokens, patches or tiles of one image, at most."""
MAX_TOKEN_TEXT = 256
"""Characters of an image token's text."""


def check_options(text: str, tokens: int = 1, **sides: int | None) -> None:
    """Raise `ValueError` for an image token's text, a number of tokens, or sides that no image processing can have."""
    if len(text) > MAX_TOKEN_TEXT:
        raise ValueError(f"the image token must have at most {MAX_TOKEN_TEXT} characters")
    if not 0 < tokens <= MAX_TOKENS:
        raise ValueError(f"the number of image tokens must be positive and at most {MAX_TOKENS}")
    for name, side in sides.items():
        if side is not None and not 0 < side <= MAX_SIDE:
            raise ValueError(f"{name} must be positive and at most {MAX_SIDE}")


def check_texts(image_token: str, **texts: str) -> None:
    """Raise `ValueError` for texts around image tokens that are too long, or that would count as such tokens."""
    if not image_token:
        raise ValueError("image_token must not be empty")
    for name, text in texts.items():
        if len(text) > MAX_TOKEN_TEXT:
            raise ValueError(f"{name} must have at most {MAX_TOKEN_TEXT} characters")
        if image_token in text:
            raise ValueError(f"{name} must not have the image token in it")


def check_tokens(count: int, size: tuple[int, int]) -> None:
    """Raise `ImageError` where an image of `size` (width, height) would be cut into too many parts."""
    if count > MAX_TOKENS:
        raise ImageError(f"an image of {size[0]} x {size[1]} pixels comes to {count} parts, {MAX_TOKENS} are possible")


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
