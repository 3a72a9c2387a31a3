"""Decoding of images from whatever a caller has: the one place of the runtime and the exporter that opens pictures.

    image = load_image("part.png")                                # also pathlib.Path, bytes, a PIL image, an array
    image = load_image(data, LoadOptions(max_pixels=20_000_000))  # tighter limits

The result is always a decoded RGB image, upright (`images.orientation`), with 8 bits per colour (`images.depth`), and
converted as the Hugging Face processors convert a PIL image: transparency (alpha channel or transparent colour) is
composited onto white, everything else goes through Pillow's `convert("RGB")`. `open_image` leaves that last step out.

Files and encoded bytes are turned as their EXIF orientation says, as `transformers.image_utils.load_image` does, unless
`LoadOptions.apply_exif_orientation` is off. PIL images and arrays are taken as they are, as
`processor(images=Image.open(path))` of transformers takes them: whoever has one may have turned it already.

Animated and multi-page files give their first frame. Only formats that cameras, phones and the web use are read: Pillow
knows many more, whose decoders are hardly ever exercised or start another program. Nothing is ever fetched from a
network.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgevlm_runtime.errors import ImageError, reason
from edgevlm_runtime.images import libtiff
from edgevlm_runtime.images.declared import declared_samples
from edgevlm_runtime.images.depth import to_eight_bits
from edgevlm_runtime.images.limits import check_pixels
from edgevlm_runtime.images.notices import tell_once
from edgevlm_runtime.images.orientation import (
    UPRIGHT,
    orientation_before_loading,
    stored_orientation,
    turned,
    turned_back,
)
from edgevlm_runtime.images.rgb import to_rgb
from edgevlm_runtime.options import MAX_PIXELS
from edgevlm_runtime.reading import open_regular, why

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]"
ImageSources: TypeAlias = "ImageSource | Sequence[ImageSource] | None"

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
"""Pillow's names; MPO is what phones and stereo cameras write into a .jpg, PPM includes PGM and PBM."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_opening = threading.Lock()
"""`warnings.catch_warnings` is not safe from several threads."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Limits and choices of `load_image`."""

    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this before decoding them."""
    max_bytes: int = 256 * 1024 * 1024
    """Refuse files (and bytes) larger than this."""
    apply_exif_orientation: bool = True
    """Turn files and encoded bytes as their EXIF orientation says."""
    bit_depth: int | None = None
    """Bits that the samples of deep pictures use, where their files do not say, or say something wrong."""


DEFAULT = LoadOptions()


def load_image(source: ImageSource, options: LoadOptions = DEFAULT) -> Image.Image:
    """Decode `source` to an RGB image in memory.

    An array is uint8 of shape [height, width, 3], RGB. Raises `ImageError`, in one line, for a missing file, a file
    that is no image, a truncated or damaged one, one with too many pixels or bytes, an empty image, one whose depth
    cannot be known (`images.depth`), and an array of another type or shape.
    """
    return to_rgb(open_image(source, options))


def open_image(source: ImageSource, options: LoadOptions = DEFAULT) -> Image.Image:
    """`load_image` without the conversion to RGB: what a processor of transformers is given to convert itself.

    Upright, of 8 bits per channel, in any mode. Raises as `load_image` does.
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


def flat(images: Iterable[ImageSources]) -> list[ImageSource]:
    """Arguments that each may be one image, several, or none, as one list."""
    return [image for given in images for image in several(given)]


def _from_path(source: str | os.PathLike[str], options: LoadOptions) -> Image.Image:
    path = Path(source)
    where = f"{path}"
    if "://" in str(source):
        raise ImageError(f"images are not fetched from addresses: {source}: download it and give the file")
    try:
        with io.BufferedReader(open_regular(path)) as file:
            size = os.fstat(file.fileno()).st_size
            if size > options.max_bytes:
                raise ImageError(f"image file too large ({size} bytes, limit {options.max_bytes}): {where}")
            data = file.read(options.max_bytes + 1)  # it may have grown; `_from_bytes` looks again
    except OSError as error:
        raise ImageError(_unreadable(path, error)) from error
    return _from_bytes(data, where, options)


def _unreadable(path: Path, error: OSError) -> str:
    if path.is_dir():
        return f"not an image but a folder: {path}: give an image file"
    if error.errno == errno.EINVAL:
        return f"not a regular file: {path}: give an image file, or its bytes"
    if isinstance(error, FileNotFoundError) and "\0" not in str(path):
        return f"no such image file: {path}"
    return f"cannot read image file: {path}: {why(error)}"


def _from_bytes(data: bytes, where: str, options: LoadOptions) -> Image.Image:
    if not data:
        raise ImageError(f"image file is empty: {where}")
    if len(data) > options.max_bytes:
        raise ImageError(f"image too large ({len(data)} bytes, limit {options.max_bytes}): {where}")
    try:
        with _opened(data) as image:
            return _decoded(image, where, options, data)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"image has too many pixels to decode safely: {where}: {reason(error)}") from error
    except UnidentifiedImageError as error:
        if data.startswith(_TIFF):
            raise ImageError(
                f"TIFF that is damaged, or of a layout that is not supported: {where}: save it as PNG"
            ) from error
        raise ImageError(f"not an image, or in a format that is not supported: {where}") from error
    except Exception as error:  # what Pillow's decoders raise on damaged data: they do not agree on anything
        raise ImageError(f"damaged image: {where}: {reason(error)}") from error


def _from_array(array: NDArray[Any], options: LoadOptions) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        shape = " x ".join(str(size) for size in array.shape) or "scalar"
        first = "" if array.dtype == np.uint8 else ": scale it to 0 to 255 first"
        raise ImageError(f"an image array must be uint8 of shape height x width x 3, not {array.dtype} {shape}{first}")
    check_pixels(array.shape[1], array.shape[0], "image array", options.max_pixels)
    if array.size == 0:
        raise ImageError(f"the image array is empty ({array.shape[1]} x {array.shape[0]} pixels)")
    return Image.fromarray(np.ascontiguousarray(array))


def _decoded(image: Image.Image, where: str, options: LoadOptions, data: bytes | None = None) -> Image.Image:
    """Decode the pixels now, while the source is as it was when asked for; `data` is the file that it comes from."""
    # Before decoding: Pillow itself refuses only images of twice its own limit and warns below.
    check_pixels(image.width, image.height, where, options.max_pixels)
    try:
        done = UPRIGHT if data is None else orientation_before_loading(image, where)
        image.load()
        check_pixels(image.width, image.height, where, options.max_pixels)  # icon formats learn their size here
        picture = to_eight_bits(image, where, declared_samples(image, data), options.bit_depth)
        left = stored_orientation(image, where)
    except ImageError:
        raise
    except Exception as error:  # as in `_from_bytes`
        raise ImageError(f"damaged image: {where}: {reason(error)}") from error
    if data is None:
        return _as_it_is(picture, left)
    orientation = done if done != UPRIGHT else left
    if not options.apply_exif_orientation:
        return _lying(turned_back(picture, done), orientation, where)
    if orientation != UPRIGHT:
        tell_once(logging.INFO, "turned", "%s: turned upright, as its EXIF orientation (%d) says", where, orientation)
    return turned(picture, left)


def _lying(picture: Image.Image, orientation: int, where: str) -> Image.Image:
    if orientation != UPRIGHT:
        tell_once(
            logging.WARNING, "not turned", "%s: taken as its pixels lie: its EXIF orientation (%d) is not applied: "
            "--exif-orientation (apply_exif_orientation=True in Python) turns it", where, orientation,
        )  # fmt: skip
    return picture


def _as_it_is(picture: Image.Image, orientation: int) -> Image.Image:
    if orientation != UPRIGHT:
        tell_once(
            logging.WARNING, "PIL image", "a PIL image with an EXIF orientation (%d) is taken as it is: "
            "give the file, or ImageOps.exif_transpose(image), to have it turned", orientation,
        )  # fmt: skip
    return picture


def _opened(data: bytes) -> Image.Image:
    """The image, its header read, without Pillow's warnings: what matters of them is an error here (many pixels)."""
    Image.init()
    libtiff.silence()
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
