"""Pillow's TIFF decoder, libtiff, without its own words on standard error: what it complains about is an error here."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache

from PIL import _imaging

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


@cache
def silence() -> None:
    """Take libtiff's two handlers away, which only print. Where Pillow hides libtiff's functions, nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # finds the functions in what Pillow is linked with
        for name in HANDLERS:
            getattr(library, name)(None)
