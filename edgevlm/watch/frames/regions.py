"""Parts of a frame: a box that is cut out, masks that are blackened, both before the vision encoder sees anything.

mask = load_mask(region.mask) if region.mask else None      # once
check(region, frame.size, mask)                             # one line for what cannot be
pixels = cut(frame.pixels, region, mask)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import load_image

Box = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]
Mask: TypeAlias = NDArray[np.bool_]
"""[height, width], True where the picture is blackened."""

BLACK = 128
"""A mask's pixels darker than this are black: a mask saved as JPEG has no pure ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the picture that questions are asked about."""

    name: str
    box: Box | None = None
    """Left, top, right, bottom: in pixels, or, where none is above 1, as shares of width and height. None: all."""
    mask: Path | None = None
    """A picture of the frame's size: what is black in it is blackened before anything else is done."""
    polygons: tuple[Polygon, ...] = ()
    """Further parts to blacken, each as its corners (x, y): pixels or shares of the frame, told apart as for `box`."""


def load_mask(path: Path) -> Mask:
    """The mask of a picture file. Raises `ImageError` for one that is missing or no picture."""
    blackened: Mask = np.asarray(load_image(path).convert("L")) < BLACK
    return blackened


def check(region: Region, size: tuple[int, int], mask: Mask | None = None) -> None:
    """Raise `EdgeVLMError` where `region` does not fit frames of `size` (width, height).

    `mask` is that of `region.mask`, which is read where it is not given.
    """
    if mask is None and region.mask is not None:
        mask = load_mask(region.mask)
    if mask is not None and mask.shape != (size[1], size[0]):
        height, width = mask.shape
        raise EdgeVLMError(
            f"region {region.name}: the mask {region.mask or ''} is {width}x{height}, and the frames are "
            f"{size[0]}x{size[1]}: draw it over a saved frame"
        )
    pixel_box(region, size)
    for polygon in region.polygons:
        if len(polygon) < 3:
            raise EdgeVLMError(f"region {region.name}: a polygon needs at least 3 corners, not {len(polygon)}")


def pixel_box(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of `region` in whole pixels. Raises `EdgeVLMError` for a box outside, or empty."""
    width, height = size
    if region.box is None:
        return 0, 0, width, height
    scale = (width, height) if max(region.box) <= 1 else (1, 1)
    left, top, right, bottom = (round(place * scale[i % 2]) for i, place in enumerate(region.box))
    said = f"region {region.name}: the box {', '.join(f'{place:g}' for place in region.box)}"
    if left < 0 or top < 0 or right > width or bottom > height:
        raise EdgeVLMError(f"{said} is not inside the frame, which is {width}x{height}")
    if right <= left or bottom <= top:
        raise EdgeVLMError(f"{said} is empty in a frame of {width}x{height}: it is left, top, right, bottom")
    return left, top, right, bottom


def cut(pixels: NDArray[np.uint8], region: Region, mask: Mask | None = None) -> NDArray[np.uint8]:
    """What `region` shows of a frame [height, width, 3], with its masks black; `pixels` is left as it is.

    Raises `EdgeVLMError` as `check` does: the size of frames may change while a camera runs.
    """
    height, width = pixels.shape[:2]
    if mask is None and region.mask is not None:
        mask = load_mask(region.mask)
    check(region, (width, height), mask)
    left, top, right, bottom = pixel_box(region, (width, height))
    inside = np.s_[top:bottom, left:right]
    blackened = [] if mask is None else [mask]
    if region.polygons:
        blackened.append(_drawn(region.polygons, (width, height)))
    found = pixels[inside]
    if blackened:
        found = found.copy()
        for one in blackened:
            found[one[inside]] = 0
    return np.ascontiguousarray(found)


@lru_cache(maxsize=64)
def _drawn(polygons: tuple[Polygon, ...], size: tuple[int, int]) -> Mask:
    width, height = size
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        shares = max(max(corner) for corner in polygon) <= 1
        across, down = (width, height) if shares else (1, 1)
        draw.polygon([(x * across, y * down) for x, y in polygon], fill=1)
    return np.asarray(canvas)
