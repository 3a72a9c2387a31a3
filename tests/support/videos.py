"""Videos whose every picture is known, written with PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
FPS = 25
BITS = 8
"""Squares of the code that says a picture's number."""


def picture(number: int, size: tuple[int, int] = (320, 240)) -> Pixels:
    """RGB: a flat colour of its own, texture that moves, and the number as black and white squares at the bottom."""
    width, height = size
    grain = np.random.default_rng(0).normal(0, 10, (height, width, 1))
    pixels = np.clip(np.roll(grain, 5 * number, axis=1) + colour(number), 0, 255).astype(np.uint8)
    side = width // BITS
    for bit in range(BITS):
        pixels[-side:, bit * side : (bit + 1) * side] = 230 if number >> bit & 1 else 20
    return pixels


def colour(number: int) -> tuple[int, int, int]:
    """Mean colour of the part above the code."""
    return 60 + number * 37 % 130, 60 + number * 71 % 130, 60 + number * 53 % 130


def number(pixels: Pixels) -> int:
    """The number that a picture, or what a codec left of it, says."""
    side = pixels.shape[1] // BITS
    squares = [
        pixels[-side // 2 - 2 : -side // 2 + 2, bit * side + side // 4 : (bit + 1) * side - side // 4]
        for bit in range(BITS)
    ]
    return sum(int(square.mean() > 125) << bit for bit, square in enumerate(squares))


def upper_colour(pixels: Pixels) -> NDArray[np.float64]:
    """Mean colour of the part above the code."""
    side = pixels.shape[1] // BITS
    mean: NDArray[np.float64] = pixels[: -side - 4].mean(axis=(0, 1))
    return mean


def write(
    file: Path, count: int = 50, size: tuple[int, int] = (320, 240), codec: str = "libx264", **options: str
) -> Path:
    """`count` pictures, numbered from 0; each second begins with one that stands alone."""
    import av

    how = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "g": str(FPS)} if codec == "libx264" else {}
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={**how, **options})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for one in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(one, size), format="rgb24")))
        container.mux(stream.encode(None))
    return file


def write_sound(file: Path) -> Path:
    """A second of silence, and no picture."""
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for _ in range(44):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file
