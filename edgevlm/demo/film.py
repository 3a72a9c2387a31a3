"""A line of parts as a camera sees it: a film in which each part rests for a moment, with its number painted beside it.

The number stands outside of the part, so that a model which sees the part alone does not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgevlm_export.inspection import Part

FPS = 10
PART = 96
"""Pixels of a part's picture in each direction, as it is drawn."""
BITS = 6
MOST = 1 << BITS
"""Parts that can be numbered."""
TIMES = 4
"""A part is shown so many times as large as the model sees it."""
FIRST = 6000
"""Of the test split's parts: `python -m edgevlm.demo` and the benchmarks show others."""


def parts(count: int) -> list[Part]:
    """Parts that training never saw."""
    from edgevlm_export import inspection

    return [inspection.part(seed) for seed in inspection.seeds("test")[FIRST : FIRST + count]]


def frame_size(times: int = TIMES) -> tuple[int, int]:
    """Width and height; the part is at the top left, its number as light and dark squares at the bottom."""
    side, square = PART * times, _square(times)
    return side + 2 * square, side + square


def write(shown: Sequence[Part], video: Path, seconds: float, times: int = TIMES) -> None:
    """The parts one after the other, each for `seconds`, as H.264."""
    import av

    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = frame_size(times)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10", "preset": "veryfast", "tune": "zerolatency", "g": str(FPS)}
        for number, part in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture(number, part, times), format="rgb24")
            for _ in range(round(seconds * FPS)):
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def picture(number: int, part: Part, times: int = TIMES) -> NDArray[np.uint8]:
    """A frame [height, width, 3]: the part, and its number in squares, the lowest bit first."""
    from PIL import Image

    from edgevlm_export import inspection

    width, height = frame_size(times)
    side, square = PART * times, _square(times)
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:side, :side] = np.asarray(inspection.draw(part).resize((side, side), Image.Resampling.NEAREST))
    for bit in range(BITS):
        frame[side:, bit * square : (bit + 1) * square] = 255 * (number >> bit & 1)
    return frame


def number_of(pixels: NDArray[np.uint8]) -> int:
    """What `picture` has painted beside the part, of whatever size it is."""
    square = pixels.shape[1] // (BITS + 2)
    middle = pixels[-square // 2, square // 2 : BITS * square : square].mean(axis=-1)
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 128)


def _square(times: int) -> int:
    """Pixels of a square: as many of them beside each other as bits are as wide as the part."""
    return PART * times // BITS
