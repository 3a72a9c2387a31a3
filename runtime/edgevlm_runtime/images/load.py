"""Decoding of images from whatever a caller has.

    image = load_image("part.png")                                # also pathlib.Path, bytes, a PIL image, an array
    image = load_image(data, LoadOptions(max_pixels=20_000_000))  # tighter limits

The result is always a decoded RGB image, converted as the Hugging Face processors convert a PIL image: transparency
(alpha channel or transparent colour) is composited onto white, everything else goes through Pillow's `convert("RGB")`.

EXIF orientation is NOT applied unless `LoadOptions.apply_exif_orientation` is set: `processor(images=Image.open(path))`
of transformers ignores the tag too, and parity is with that. (transformers does apply it when it is itself given the
path or address as a string.)

Animated and multi-page files give their first frame. Only formats that cameras, phones and the web use are read: Pillow
knows many more, whose decoders are hardly ever exercised or start another program. Nothing is ever fetched from a
network.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images import libtiff
from edgevlm_runtime.images.limits import check_pixels
from edgevlm_runtime.options import MAX_PIXELS

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]"
ImageSources: TypeAlias = "ImageSource | Sequence[ImageSource] | None"

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
"""Pillow's names; MPO is what phones and stereo cameras write into a .jpg, PPM includes PGM and PBM."""

_STRIP_PIXELS = 1 << 20
"""Transparent images are composited in strips of about this many pixels: four copies of a strip, not of the image."""

_opening = threading.Lock()
"""`warnings.catch_warnings` is not safe from several threads."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Limits and choices of `load_image`."""

    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this before decoding them."""
    max_bytes: int = 256 * 1024 * 1024
    """Refuse files (and bytes) larger than this."""
    apply_exif_orientation: bool = False
    """Turn the image as its EXIF orientation says; off, as in the reference (see the module's docstring)."""


DEFAULT = LoadOptions()


def load_image(source: ImageSource, options: LoadOptions = DEFAULT) -> Image.Image:
    """Decode `source` to an RGB image held in memory.

    An array is uint8 of shape [height, width, 3], RGB. Raises `ImageError`, in one line, for a missing file, a file
    that is no image, a truncated or damaged one, one with too many pixels or bytes, an empty image, and an array of
    another type or shape.
    """
    if isinstance(source, Image.Image):
        return _decoded(source, "PIL image", options)
    if isinstance(source, np.ndarray):
        return _from_array(source, options)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), f"image of {len(source)} bytes", options)
    if isinstance(source, str | os.PathLike):
        return _from_path(source, options)
    raise ImageError(
        f"cannot use {type(source).__name__} as an image: "
        "give a path, bytes, a PIL image or a uint8 [height, width, 3] array"
    )


def several(images: ImageSources) -> Sequence[ImageSource]:
    """What may be one image, several in a list or tuple, or none (None), as a sequence."""
    if images is None:
        return ()
    return images if isinstance(images, (list, tuple)) else (images,)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, transparency composited onto white; the same object where there is nothing to do.

    The rule is that of `convert_to_rgb` in transformers.image_transforms (5.23). Raises `ImageError` for a mode that
    Pillow cannot convert, and for an image without pixels.
    """
    if image.width == 0 or image.height == 0:
        raise ImageError(
            f"the image is empty ({image.width} x {image.height} pixels): give one with at least one pixel"
        )
    transparent = "A" in image.getbands() or image.info.get("transparency") is not None
    if image.mode == "RGB" and not transparent:
        return image
    try:
        return _composited(image) if transparent else image.convert("RGB")
    except Exception as error:  # as in `_from_bytes`
        raise ImageError(f"cannot convert an image of mode {image.mode} to RGB: {_line(error)}") from error


def _composited(image: Image.Image) -> Image.Image:
    """RGB, transparency over white: beside the image, one RGB image and a few strips are held."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _from_path(source: str | os.PathLike[str], options: LoadOptions) -> Image.Image:
    path = Path(source)
    where = f"{path}"
    if "://" in str(source):
        raise ImageError(f"images are not fetched from addresses: {source}: download it and give the file")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"not an image but a folder: {where}: give an image file")
        if not stat.S_ISREG(status.st_mode):  # a pipe may block for ever, a device may never end
            raise ImageError(f"not a regular file: {where}: give an image file, or its bytes")
        if status.st_size > options.max_bytes:
            raise ImageError(f"image file too large ({status.st_size} bytes, limit {options.max_bytes}): {where}")
        with path.open("rb") as file:
            data = file.read(options.max_bytes + 1)  # it may have grown; `_from_bytes` looks again
    except FileNotFoundError as error:
        raise ImageError(f"no such image file: {where}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read image file: {where}: {_line(error)}") from error
    return _from_bytes(data, where, options)


def _from_bytes(data: bytes, where: str, options: LoadOptions) -> Image.Image:
    if not data:
        raise ImageError(f"image file is empty: {where}")
    if len(data) > options.max_bytes:
        raise ImageError(f"image too large ({len(data)} bytes, limit {options.max_bytes}): {where}")
    try:
        with _opened(data) as image:
            return _decoded(image, where, options)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"image has too many pixels to decode safely: {where}: {_line(error)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image, or in a format that is not supported: {where}") from error
    except Exception as error:  # what Pillow's decoders raise on damaged data: they do not agree on anything
        raise ImageError(f"damaged image: {where}: {_line(error)}") from error


def _from_array(array: NDArray[Any], options: LoadOptions) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        shape = " x ".join(str(size) for size in array.shape) or "scalar"
        raise ImageError(f"an image array must be uint8 of shape height x width x 3, not {array.dtype} {shape}")
    check_pixels(array.shape[1], array.shape[0], "image array", options.max_pixels)
    if array.size == 0:
        raise ImageError(f"the image array is empty ({array.shape[1]} x {array.shape[0]} pixels)")
    return Image.fromarray(np.ascontiguousarray(array))


def _decoded(image: Image.Image, where: str, options: LoadOptions) -> Image.Image:
    """Decode the pixels now, while the source is as it was when asked for."""
    # Before decoding: Pillow itself refuses only images of twice its own limit and warns below.
    check_pixels(image.width, image.height, where, options.max_pixels)
    try:
        image.load()
        check_pixels(image.width, image.height, where, options.max_pixels)  # icon formats learn their size here
        if options.apply_exif_orientation:
            image = ImageOps.exif_transpose(image)
        return to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # as in `_from_bytes`
        raise ImageError(f"damaged image: {where}: {_line(error)}") from error


def _opened(data: bytes) -> Image.Image:
    """The image, its header read, without Pillow's warnings: what matters of them is an error here (many pixels)."""
    Image.init()
    libtiff.silence()
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def _line(error: BaseException) -> str:
    """The error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
