"""One picture of a source, with its place and time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Frame:
    """A picture that a source gave."""

    sequence: int
    """1 for the first frame of the source since the start, counting those that nobody answered; 0: none came."""
    captured_at: float
    """Unix time in seconds at which it was received; wall clocks jump, so nothing is computed from it."""
    captured: float
    """`time.monotonic()` of the same moment."""
    pixels: NDArray[np.uint8]
    """RGB [height, width, 3], not written to; of no size where there is no picture."""
    name: str = ""
    """The file it came from, where there is one."""

    @cached_property
    def digest(self) -> str:
        """sha256 of size and pixels, in hexadecimal: equal pictures have equal digests, whatever file they came in.
        Empty where there are no pixels."""
        if not self.pixels.size:
            return ""
        height, width = self.pixels.shape[:2]
        found = hashlib.sha256(f"{width}x{height}:".encode())
        found.update(np.ascontiguousarray(self.pixels).data)
        return found.hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pixels.shape[:2]
        return width, height


def no_frame(at: float, since: float) -> Frame:
    """In place of the frame of a part that asked for a verdict at `at` (Unix time; `since` by `time.monotonic()`), when
    the camera gave none."""
    return Frame(0, at, since, NO_PIXELS)
