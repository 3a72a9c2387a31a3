"""What the auxiliary heads should see in a picture, computed from the part that it shows.

The heads exist during training only. They tell the vision tower what is where long before answers to questions could.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edgevlm_export.inspection import Part, Spot
from edgevlm_export.inspection.canvas import Canvas
from edgevlm_export.inspection.glyphs import CHARACTERS
from edgevlm_export.inspection.parts import COLOURS, DEFECTS, LOCATIONS, UNIT, Label
from edgevlm_export.inspector.train.model import GRID, PATCH

CELL = PATCH * UNIT
NO_CHARACTER = len(CHARACTERS)
OFF_PLATE = 9
HOLE, SCREW, SEAT = range(len(DEFECTS), len(DEFECTS) + 3)
MAPS = len(DEFECTS) + 3
"""Binary maps over the patches: five defects, then the middles of holes, screws and empty seats."""
COLOUR_NAMES = tuple(COLOURS)
LOCATION_NAMES = tuple(name for row in LOCATIONS for name in row)

_CENTRES = np.arange(GRID) * PATCH + PATCH // 2


def _patch(canvas: Canvas, u: int, v: int) -> tuple[int, int]:
    x, y = canvas.in_image(u, v)
    return min(GRID - 1, max(0, y // CELL)), min(GRID - 1, max(0, x // CELL))


def _mark(maps: npt.NDArray[np.float32], canvas: Canvas, spots: Iterable[Spot], channel: int) -> None:
    for spot in spots:
        maps[(channel, *_patch(canvas, spot.u, spot.v))] = 1


def _characters(canvas: Canvas, label: Label) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Which character has its middle in each patch ``[12, 12]``, and the three characters."""
    where = np.full((GRID, GRID), NO_CHARACTER)
    text = [CHARACTERS.index(character) for character in label.code]
    for place, character in enumerate(text):
        where[_patch(canvas, label.u + (place - 1) * 6 * label.dot, label.v)] = character
    return where, text


def targets(part: Part) -> dict[str, npt.NDArray[np.generic]]:
    """Truth for each head: maps ``[8, 12, 12]``, cells and glyphs ``[12, 12]``, the rest scalars or ``[3]``."""
    canvas = Canvas(part.centre, part.turn)
    u, v = canvas.u[np.ix_(_CENTRES, _CENTRES)], canvas.v[np.ix_(_CENTRES, _CENTRES)]
    column = (2 * u + part.width) * 3 // (2 * part.width)
    row = (2 * v + part.height) * 3 // (2 * part.height)
    on_plate = (column >= 0) & (column < 3) & (row >= 0) & (row < 3)
    maps = np.zeros((MAPS, GRID, GRID), dtype=np.float32)
    _mark(maps, canvas, part.holes, HOLE)
    _mark(maps, canvas, part.screws, SCREW)
    if part.defect:
        near = (u - part.defect.u) ** 2 + (v - part.defect.v) ** 2 < (part.defect.reach + 2 * UNIT) ** 2
        maps[DEFECTS.index(part.defect.kind)] = near
        if part.defect.kind == "missing screw":
            maps[(SEAT, *_patch(canvas, part.defect.u, part.defect.v))] = 1
    glyphs, text = np.full((GRID, GRID), NO_CHARACTER), [NO_CHARACTER] * 3
    if part.label:
        glyphs, text = _characters(canvas, part.label)
    return {
        "maps": maps,
        "cells": np.where(on_plate, row * 3 + column, OFF_PLATE).astype(np.int64),
        "glyphs": glyphs.astype(np.int64),
        "characters": np.array(text),
        "defect": np.array(DEFECTS.index(part.defect.kind) if part.defect else len(DEFECTS)),
        "location": np.array(LOCATION_NAMES.index(part.location) if part.location else len(LOCATION_NAMES)),
        "holes": np.array(len(part.holes)),
        "screws": np.array(len(part.screws)),
        "colour": np.array(COLOUR_NAMES.index(part.colour)),
    }
