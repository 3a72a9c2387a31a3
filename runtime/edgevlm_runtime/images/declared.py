"""What a file says about the numbers that stand for its pixels: how many bits of them are used, and what zero means.

    samples = declared_samples(image, data)      # an image as Pillow opened it, and the bytes it came from

One function for each format that has more than 8 bits per sample; Pillow's own reading stops at the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin


@dataclass(frozen=True, slots=True)
class Samples:
    """One sample is one number: a grey pixel has one, a coloured one three or more."""

    stored: int | None = None
    """Bits that each takes in the file; None where that is what the pixels' type in memory takes."""
    used: int | None = None
    """Bits that hold the picture, a sign included, counted from the lowest; None where the file does not say."""
    signed: bool | None = None
    """None where the type in memory says so."""
    white_is_zero: bool = False
    scaled: bool = False
    """Whether Pillow has brought them to the whole range of the type already, by what the file says."""
    range: tuple[float, float] | None = None
    """Black and white of floating-point samples, where the file says so."""


def declared_samples(image: Image.Image, data: bytes | None) -> Samples:
    """What is known about an image whose pixels are loaded. `data` is the file; None where nobody has it."""
    reader = READERS.get(image.format or "")
    return Samples() if reader is None else reader(image, data)


def _tiff(image: Image.Image, data: bytes | None) -> Samples:
    """BitsPerSample, SampleFormat, PhotometricInterpretation; MaxSampleValue, SMinSampleValue and SMaxSampleValue."""
    tags: Any = getattr(image, "tag_v2", {})
    stored = _whole(tags, TiffImagePlugin.BITSPERSAMPLE)
    kind = _whole(tags, TiffImagePlugin.SAMPLEFORMAT) or 1
    inverted = _whole(tags, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    low, high = _number(tags, _S_MIN), _number(tags, _S_MAX)
    if kind == _FLOAT:
        known = high is not None and high > (low or 0)
        return Samples(stored, white_is_zero=inverted, range=(low or 0.0, float(high or 0)) if known else None)
    used = _bits(low or 0, high if high is not None else _number(tags, _MAX))
    if stored is not None and used is None and stored not in {8, 16, 32}:
        used = stored  # 12 bits, packed
    return Samples(stored, used, kind == _SIGNED, inverted)


def _png(image: Image.Image, data: bytes | None) -> Samples:
    """sBIT, the bits that were there before the writer scaled them to 16, as the format asks for.

    Some writers put the bare numbers into the file instead: below 2**bits, and not such as scaling would have made.
    """
    if data is None or len(data) <= _PNG_DEPTH or data[_PNG_DEPTH] != 16:
        return Samples()
    found = _PNG_SBIT.search(data[: data.find(b"IDAT")])
    used = found[1][0] if found else 0
    if image.mode != "I;16" or not 0 < used < 16:
        return Samples(16, used=16 if used else None)
    values = np.asarray(image)
    original = values >> np.uint16(16 - used)
    rescaled = np.rint(original * (65535 / ((1 << used) - 1)))
    as_asked = (values & np.uint16((1 << (16 - used)) - 1) == 0) | (values == rescaled)
    bare = bool(values.max() < 1 << used) and not bool(as_asked.all())
    return Samples(16, used=used if bare else 16)


def _pnm(image: Image.Image, data: bytes | None) -> Samples:
    """The header's greatest value, to which Pillow scales unless it is the type's own: 65535 is what writers put there
    for any number of bits, and says nothing of how many are used."""
    found = None if data is None else _PNM_HEADER.match(data)
    greatest = 255 if found is None else int(found[1])
    if image.mode != "I" and greatest < 256:
        return Samples()
    scaled = found is not None and greatest != 65535
    return Samples(16, used=16 if scaled else None, signed=False, scaled=scaled)


def _jpeg_2000(image: Image.Image, data: bytes | None) -> Samples:
    """The codestream's precision; Pillow shifts the bits up to the type's highest."""
    return Samples(16, used=16, scaled=True)


READERS: dict[str, Callable[[Image.Image, bytes | None], Samples]] = {
    "TIFF": _tiff,
    "PNG": _png,
    "PPM": _pnm,
    "JPEG2000": _jpeg_2000,
}
"""By Pillow's name of the format."""

_SIGNED, _FLOAT = 2, 3
_MAX, _S_MIN, _S_MAX = 281, 340, 341
_PNG_DEPTH = 24
"""Place of the bit depth: behind the signature, the header's length, its name, width and height."""
_PNG_SBIT = re.compile(rb"\0\0\0[\1-\4]sBIT(.)", re.DOTALL)
_PNM_HEADER = re.compile(rb"P[2356](?:(?:\s|#[^\n\r]*[\n\r])+\d+){2}(?:\s|#[^\n\r]*[\n\r])+(\d{1,10})\s")
"""Width, height and greatest value, with comments between them."""


def _bits(low: float, high: float | None) -> int | None:
    """The bits that whole numbers from `low` to `high` need, with a sign where `low` has one."""
    if high is None or high < 1:
        return None
    return max(int(high).bit_length(), int(-low - 1).bit_length()) + 1 if low < 0 else int(high).bit_length()


def _number(tags: Any, tag: int) -> float | None:
    """A tag's greatest value; None where it is missing, or no number."""
    value = tags.get(tag)
    values = value if isinstance(value, tuple) else (value,)
    try:
        numbers = [float(one) for one in values]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return max(numbers) if numbers and all(map(math.isfinite, numbers)) else None


def _whole(tags: Any, tag: int) -> int | None:
    number = _number(tags, tag)
    return None if number is None else int(number)
