"""Parts of a frame: a box that is cut out, masks that are blackened, both before the vision encoder sees anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the picture that questions are asked about."""

    name: str
    box: Box | None = None
    """Left, top, right, bottom: in pixels, or, where none is above 1, as shares of width and height. None: everything."""
    mask: Path | None = None
    """A picture of the frame's size: what is black in it is blackened before anything else is done."""
    polygons: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Further parts to blacken, each as its corners (x, y), in the units of `box`."""
