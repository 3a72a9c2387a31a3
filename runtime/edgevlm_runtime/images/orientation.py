"""Which way up a picture is.

Phones and cameras store what the sensor gave and write into the EXIF data how to turn it: one of eight orientations, in
JPEG, PNG, WEBP, AVIF and TIFF files alike (tag 0x0112; XMP's `tiff:Orientation` where EXIF has none). Every viewer
turns the picture, and so does `transformers.image_utils.load_image`.

Pillow turns TIFF files itself while it loads them, and no others.
"""

from __future__ import annotations

import logging

from PIL import ExifTags, Image

from edgevlm_runtime.images.notices import tell_once

UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of this orientation upright."""
_UNDOES = {**TURNS, 6: TURNS[8], 8: TURNS[6]}
TURNED_WHILE_LOADING = ("TIFF",)
"""Formats that Pillow turns itself."""


def stored_orientation(image: Image.Image, where: str) -> int:
    """1 (upright) to 8, by the EXIF data; 1 where there are none, or none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception as error:  # noqa: BLE001 (Pillow's readers raise what they meet in damaged data)
        kind = type(error).__name__
        tell_once(logging.WARNING, "exif damaged", "%s: its EXIF data are damaged (%s): not turned", where, kind)
        return UPRIGHT
    return orientation if isinstance(orientation, int) and orientation in TURNS else UPRIGHT


def orientation_before_loading(image: Image.Image, where: str) -> int:
    """The orientation that Pillow will apply, and forget, when the image is loaded."""
    return stored_orientation(image, where) if image.format in TURNED_WHILE_LOADING else UPRIGHT


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture brought upright."""
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def turned_back(picture: Image.Image, orientation: int) -> Image.Image:
    """What `turned` was given to make `picture`."""
    return picture.transpose(_UNDOES[orientation]) if orientation in _UNDOES else picture
