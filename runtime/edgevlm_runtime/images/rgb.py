"""The last step of loading: any mode of Pillow to RGB, as the Hugging Face processors convert it."""

from __future__ import annotations

from PIL import Image

from edgevlm_runtime.errors import ImageError, reason
from edgevlm_runtime.images.declared import Samples
from edgevlm_runtime.images.depth import to_eight_bits

_STRIP_PIXELS = 1 << 20
"""Transparent images are composited in strips of about this many pixels: four copies of a strip, not of the image."""


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, transparency composited onto white; the same object where there is nothing to do.

    The rule is that of `convert_to_rgb` in transformers.image_transforms (5.23), after `images.depth` for deep modes.
    Raises `ImageError` for a mode that Pillow cannot convert, and for an image without pixels.
    """
    if image.width == 0 or image.height == 0:
        raise ImageError(
            f"the image is empty ({image.width} x {image.height} pixels): give one with at least one pixel"
        )
    image = to_eight_bits(image, "PIL image", Samples())
    transparent = "A" in image.getbands() or image.info.get("transparency") is not None
    if image.mode == "RGB" and not transparent:
        return image
    try:
        if image.mode == "La":  # premultiplied, which Pillow converts to this alone
            return _composited(image.convert("LA"))
        return _composited(image) if transparent else image.convert("RGB")
    except Exception as error:  # what Pillow raises for what it cannot convert
        raise ImageError(f"cannot convert an image of mode {image.mode} to RGB: {reason(error)}") from error


def _composited(image: Image.Image) -> Image.Image:
    """RGB, transparency over white: beside the image, one RGB image and a few strips are in memory."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result
