"""The picture while it is being drawn: pixels in fixed point and the place of every pixel on the plate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgevlm_export.inspection.geometry import ONE, Ints, rotation
from edgevlm_export.inspection.parts import SIZE, UNIT

LEVEL = 16
"""Fixed-point steps per grey level."""

_MIDDLES: Ints = np.arange(SIZE, dtype=np.int32) * UNIT + UNIT // 2


class Canvas:
    """``pixels[y, x, rgb]`` in 1/16 grey levels; ``u[y, x]``, ``v[y, x]``: the pixel's place on the plate."""

    def __init__(self, centre: tuple[int, int], turn: int) -> None:
        cosine, sine = rotation(turn)
        x, y = _MIDDLES[None, :] - centre[0], _MIDDLES[:, None] - centre[1]
        self._centre, self._cosine, self._sine = centre, cosine, sine
        self.u: Ints = (cosine * x + sine * y) >> 14
        self.v: Ints = (cosine * y - sine * x) >> 14
        self.pixels: Ints = np.zeros((SIZE, SIZE, 3), dtype=np.int32)

    def in_image(self, u: int, v: int) -> tuple[int, int]:
        """The place on the plate (u, v) in the image, sub-pixel units from its upper left corner."""
        x = (self._cosine * u - self._sine * v) // ONE + self._centre[0]
        y = (self._sine * u + self._cosine * v) // ONE + self._centre[1]
        return x, y

    def near(self, u: int, v: int, reach: int) -> View:
        """The square of pixels within ``reach`` of a place on the plate."""
        x, y = self.in_image(u, v)
        columns = slice(max(0, (x - reach) // UNIT - 1), min(SIZE, (x + reach) // UNIT + 2))
        rows = slice(max(0, (y - reach) // UNIT - 1), min(SIZE, (y + reach) // UNIT + 2))
        return View(self.u[rows, columns] - u, self.v[rows, columns] - v, self.pixels[rows, columns])

    def whole(self) -> View:
        return View(self.u, self.v, self.pixels)


class View:
    """Some of a canvas's pixels, with their places relative to the feature that is drawn there."""

    def __init__(self, u: Ints, v: Ints, pixels: Ints) -> None:
        self.u, self.v, self.pixels = u, v, pixels

    def paint(self, colour: Sequence[int], cover: Ints) -> None:
        """Lay a colour (grey levels) over the pixels; ``cover[y, x]`` from 0 to 256."""
        paint = np.array(colour, dtype=np.int32) * LEVEL
        self.pixels += ((paint - self.pixels) * cover[..., None]) >> 8

    def shade(self, gain: Ints) -> None:
        """Multiply brightness by 1 + ``gain[y, x]`` / 256."""
        self.pixels += (self.pixels * gain[..., None]) >> 8
