"""How each feature of a part looks: holes, screws, defects, the label. One small function each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from edgevlm_export.inspection import geometry, glyphs
from edgevlm_export.inspection.canvas import Canvas
from edgevlm_export.inspection.parts import UNIT, Defect, Label, Spot

INK = (24, 24, 28)
PAPER = (238, 238, 232)
STEEL = (206, 208, 212)


def draw_hole(canvas: Canvas, spot: Spot, background: tuple[int, int, int]) -> None:
    """A hole through the plate: the background in shadow, a bright burr around it."""
    view = canvas.near(spot.u, spot.v, spot.radius + UNIT)
    view.shade(geometry.disc(view.u, view.v, spot.radius + 12) * 40 // 256)
    view.paint([level // 5 for level in background], geometry.disc(view.u, view.v, spot.radius - 4))


def draw_screw(canvas: Canvas, spot: Spot, background: tuple[int, int, int]) -> None:
    """A steel head in a dark seat, with a cross slot."""
    view = canvas.near(spot.u, spot.v, spot.radius + UNIT)
    view.paint((40, 40, 44), geometry.disc(view.u, view.v, spot.radius))
    view.paint(STEEL, geometry.disc(view.u, view.v, spot.radius - 18))
    du, dv = geometry.DIRECTIONS[spot.slot]
    arm = (du * (spot.radius - 36) // 16, dv * (spot.radius - 36) // 16)
    for end in (arm, (-arm[1], arm[0])):
        view.paint((30, 30, 34), geometry.segment(view.u, view.v, (-end[0], -end[1]), end, 12))


def _scratch(canvas: Canvas, defect: Defect) -> None:
    """A bright straight line with a dark burr on one side."""
    view = canvas.near(defect.u, defect.v, defect.reach + 2 * UNIT)
    start, end = defect.strokes
    view.paint((40, 40, 40), geometry.segment(view.u - 12, view.v - 12, start, end, 10) * 150 // 256)
    view.paint((252, 252, 250), geometry.segment(view.u, view.v, start, end, 11))


def _crack(canvas: Canvas, defect: Defect) -> None:
    """A dark jagged line."""
    view = canvas.near(defect.u, defect.v, defect.reach + 4 * UNIT)
    cover = np.zeros_like(view.u)
    for start, end in pairwise(defect.strokes):
        cover = np.maximum(cover, geometry.segment(view.u, view.v, start, end, 10))
    view.paint((10, 8, 8), cover)


def _dent(canvas: Canvas, defect: Defect) -> None:
    """A hollow: its upper left in shadow, its lower right in the light."""
    view = canvas.near(defect.u, defect.v, defect.reach + UNIT)
    slope = np.clip((view.u + view.v) * 150 // defect.reach, -150, 150)
    view.shade(slope * geometry.disc(view.u, view.v, defect.reach) >> 8)


def _stain(canvas: Canvas, defect: Defect) -> None:
    """Three soft lobes of brown, through which the surface shows."""
    view = canvas.near(defect.u, defect.v, defect.reach + 2 * UNIT)
    inside = np.full_like(view.u, -10 * UNIT)
    for u, v in defect.strokes:
        inside = np.maximum(inside, geometry.disc_inside(view.u - u, view.v - v, defect.reach * 5 // 8))
    view.paint((66, 44, 22), np.clip(90 + inside * 4, 0, 170))


def _missing_screw(canvas: Canvas, defect: Defect) -> None:
    """An empty seat: a wide bright countersink around a small dark bore."""
    view = canvas.near(defect.u, defect.v, defect.reach + UNIT)
    view.paint((40, 40, 44), geometry.disc(view.u, view.v, defect.reach))
    view.paint(STEEL, geometry.disc(view.u, view.v, defect.reach - 16))
    view.paint((12, 12, 14), geometry.disc(view.u, view.v, defect.reach - 44))


DEFECT_LOOKS: dict[str, Callable[[Canvas, Defect], None]] = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "crack": _crack,
    "missing screw": _missing_screw,
}


def draw_label(canvas: Canvas, label: Label) -> None:
    """A white sticker; each pixel samples the dots at four points, as a camera averages over a pixel."""
    dots = glyphs.line(label.code)
    rows, columns = dots.shape
    width, height = columns * label.dot, rows * label.dot
    view = canvas.near(label.u, label.v, width // 2 + 3 * UNIT)
    view.paint(INK, geometry.coverage(geometry.box_inside(view.u, view.v, width + UNIT, height + UNIT)))
    view.paint(PAPER, geometry.coverage(geometry.box_inside(view.u, view.v, width, height)))
    padded = np.pad(dots, 1)
    ink = np.zeros_like(view.u)
    for shift_u, shift_v in ((-4, -4), (-4, 4), (4, -4), (4, 4)):
        column = (view.u + shift_u + width // 2) // label.dot
        row = (view.v + shift_v + height // 2) // label.dot
        ink += padded[np.clip(row + 1, 0, rows + 1), np.clip(column + 1, 0, columns + 1)]
    view.paint(INK, ink * 64)
