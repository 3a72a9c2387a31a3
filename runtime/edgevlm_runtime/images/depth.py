"""Pictures with more than 8 bits per sample, brought to 8: industrial cameras, microscopes, X-ray devices write them.

Pillow's own conversion clips: everything above 255 is white. Here the first rule that holds finds black and white:

1. `bit_depth`, where the caller gives it: 0 is black, 2**bits - 1 white.
2. What the file says (`images.declared`).
3. Integers: the whole range of the type, and that is told, once. A signed type is taken as 0 to its greatest value,
   unless a value is negative. What stays below a quarter of the range is refused: it would be dark, since most likely
   it has 14, 12 or 10 bits, and which cannot be known.
4. Floating point: 0 to 1. Values outside of that are refused: nothing says what they mean.

Nothing is clipped. docs/images.md says the same for users.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.declared import Samples
from edgevlm_runtime.images.notices import tell_once

DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes with one sample per pixel of more than 8 bits."""
COLOURS = {"RGB": 3, "RGBA": 3, "RGBX": 3, "RGBa": 3, "CMYK": 4, "YCbCr": 1, "LAB": 1}
"""Modes with several samples per pixel, and how many of them can be bright; Pillow reads 8 bits of each."""
HOW = "give --image-depth BITS (image_bit_depth=BITS in Python)"
_STRIP = 1 << 18
"""Samples converted at once: they are float64 meanwhile."""
_HALF = 0.5 / 255
"""Half a grey level: what is no further outside than this becomes black or white by rounding, too."""
_LEAST_REACH = 0.25
"""A picture that does not reach this share of its type's range hardly uses all bits: there are sensors of 14."""
_SENSORS = (8, 10, 12, 14, 16, 24)
"""Usual depths, in bits."""

Range = tuple[float, float]
"""The values of black and of white."""


def to_eight_bits(image: Image.Image, where: str, samples: Samples, bits: int | None = None) -> Image.Image:
    """The image, in grey (L, or LA where a grey value is transparent) if it was a deep one, else as it is.

    `samples` is what the file says, `bits` what the caller does. Raises `ImageError` where the depth cannot be known.
    """
    if image.width == 0 or image.height == 0:
        return image
    signed_bytes = image.mode == "L" and samples.stored == 8 and samples.signed is True
    if image.mode not in DEEP and not signed_bytes:
        _check_colour(image, where, samples, bits)
        return image
    values = _values(image, samples)
    find = _of_floats if values.dtype.kind == "f" else _of_integers
    grey = Image.fromarray(_scaled(values, find(values, where, samples, bits), samples.white_is_zero))
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    return grey


def _values(image: Image.Image, samples: Samples) -> NDArray[np.generic]:
    """The samples as the numbers they are, [height, width]."""
    array = np.asarray(image)
    if array.dtype == np.int32 and samples.signed is False:
        return array.view(np.uint32)  # Pillow has no such type
    return array.view(np.int8) if array.dtype == np.uint8 else array


def _of_integers(values: NDArray[np.generic], where: str, samples: Samples, bits: int | None) -> Range:
    low, high = int(values.min()), int(values.max())
    signed = values.dtype.kind == "i" and samples.signed is not False
    stored = samples.stored or values.dtype.itemsize * 8
    whole = _integer_range(stored if low < 0 or not signed else stored - 1, low < 0)
    if bits is not None and not samples.scaled:
        chosen = _integer_range(bits, low < 0)
        if not _holds(chosen, low, high):
            raise ImageError(f"{where}: its values reach from {low} to {high}, more than {bits} bits hold: {HOW}")
        return chosen
    if samples.used is not None:
        declared = _integer_range(samples.used, low < 0)
        if _holds(declared, low, high):
            return declared
        tell_once(logging.WARNING, "wrong depth", "%s: says that it has %d bits, and has more", where, samples.used)
    _check_reach(high - min(low, 0), whole, where, stored)
    level = logging.INFO if high * 2 > whole[1] else logging.WARNING  # with its highest bit used, there is no doubt
    tell_once(
        level,
        "depth assumed",
        "%s: does not say how many of its %d bits are used: %d is taken as white, its brightest value is %d; "
        "where it is another, %s",
        where, stored, whole[1], high, HOW,
    )  # fmt: skip
    return whole


def _check_reach(reach: int, whole: Range, where: str, stored: int) -> None:
    """Refuse what would come out dark because, most likely, fewer bits are used than there are."""
    if not 0 < reach < _LEAST_REACH * (whole[1] - whole[0]):
        return
    fitting = next((bits for bits in _SENSORS if reach < 1 << bits), stored)
    raise ImageError(
        f"{where}: does not say how many of its {stored} bits are used, and its values fit into {fitting}: "
        f"give --image-depth {fitting} (image_bit_depth={fitting} in Python), or {stored} where it is as dark as that"
    )


def _of_floats(values: NDArray[np.generic], where: str, samples: Samples, bits: int | None) -> Range:
    if not np.isfinite(values).all():
        raise ImageError(f"{where}: has pixels that are not finite numbers: mend or replace it")
    low, high = float(values.min()), float(values.max())
    if bits is not None:
        chosen = _integer_range(bits, False)
        if not _holds(chosen, low, high, _HALF):
            raise ImageError(f"{where}: its values reach from {low:g} to {high:g}, outside of {bits} bits: {HOW}")
        return chosen
    for known in ((0.0, 1.0), samples.range):
        if known is not None and _holds(known, low, high, _HALF):
            return known
    raise ImageError(
        f"{where}: its values reach from {low:g} to {high:g}, and nothing says which is white: "
        f"scale them to 0 to 1, or {HOW}"
    )


def _integer_range(bits: int, negative: bool) -> Range:
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if negative else (0.0, 2.0**bits - 1)


def _holds(found: Range, low: float, high: float, slack: float = 0.0) -> bool:
    """Whether nothing from `low` to `high` would be clipped; `slack` is a share of the range."""
    black, white = found
    outside = (white - black) * slack
    return black - outside <= low and high <= white + outside


def _scaled(values: NDArray[np.generic], found: Range, white_is_zero: bool) -> NDArray[np.uint8]:
    """To 0 (black) to 255, rounded to the nearest."""
    black, white = found
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for top in range(0, values.shape[0], rows):
        strip = (values[top : top + rows].astype(np.float64) - black) * (255 / (white - black))
        result[top : top + rows] = np.clip(np.rint(strip), 0, 255)
    return 255 - result if white_is_zero else result


def _check_colour(image: Image.Image, where: str, samples: Samples, bits: int | None) -> None:
    """16 bits per colour: Pillow reads the upper 8 of them, which is right where all 16 are used, and only there."""
    if samples.stored != 16 or samples.scaled or image.mode not in COLOURS:
        return
    used = bits or samples.used
    if used is not None and used < 16:
        raise ImageError(
            f"{where}: a colour picture that uses {used} of 16 bits cannot be read: save it with 8 bits per colour"
        )
    brightest = int(np.asarray(image)[..., : COLOURS[image.mode]].max())
    if used is None and 0 < brightest < _LEAST_REACH * 256:
        raise ImageError(
            f"{where}: a colour picture that seems to use the lower ones of its 16 bits: "
            "save it with 8 bits per colour, or give --image-depth 16 (image_bit_depth=16 in Python) if it is so dark"
        )
