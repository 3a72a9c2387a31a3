"""From a part to its picture: background, plate, features, then light, lens and sensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from edgevlm_export.inspection import features, geometry
from edgevlm_export.inspection.canvas import LEVEL, Canvas
from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspection.geometry import Ints
from edgevlm_export.inspection.parts import SIZE, Part
from edgevlm_export.inspection.sampling import part

TEXTURE_STREAM = 2


def _brushed(canvas: Canvas, draws: Draws) -> Ints:
    """Lines along the plate, one pixel wide."""
    lines: Ints = (draws.bytes(256) - 128)[(canvas.v >> 4) & 255] // 4
    return lines


def _cast(canvas: Canvas, draws: Draws) -> Ints:
    """Grain of two pixels."""
    grain = (draws.bytes(64 * 64) - 128).reshape(64, 64)
    laid: Ints = grain[(canvas.v >> 5) & 63, (canvas.u >> 5) & 63] // 5
    return laid


def _moulded(canvas: Canvas, draws: Draws) -> Ints:
    """Smooth, with a broad sheen across it."""
    across = np.abs(canvas.u + canvas.v - draws.between(-400, 400))
    sheen: Ints = np.maximum(0, 40 - across // 8)
    return sheen


TEXTURES: dict[str, Callable[[Canvas, Draws], Ints]] = {"brushed": _brushed, "cast": _cast, "moulded": _moulded}
"""Change of brightness in 1/256 over the plate."""


def _lay_background(canvas: Canvas, the_part: Part, draws: Draws) -> None:
    """A flat colour, stripes across the conveyor, and grain of four pixels."""
    scene = the_part.scene
    canvas.pixels += np.array(scene.background, dtype=np.int32) * LEVEL
    if scene.stripes:
        columns = np.arange(SIZE, dtype=np.int32)
        canvas.pixels -= ((columns % scene.stripes < scene.stripes // 2) * 10 * LEVEL)[None, :, None]
    grain = (draws.bytes(24 * 24) - 128).reshape(24, 24) // 12 * LEVEL
    canvas.pixels += grain.repeat(4, axis=0).repeat(4, axis=1)[..., None]


def _lay_plate(canvas: Canvas, the_part: Part, draws: Draws) -> None:
    """The plate's colour under its texture, with a rim in shadow."""
    inside = geometry.PLATES[the_part.outline](canvas.u, canvas.v, the_part.width, the_part.height, the_part.corner)
    cover = geometry.coverage(inside)
    canvas.whole().paint(the_part.rgb, cover)
    rim = geometry.coverage(inside) - geometry.coverage(inside - 20)
    texture = TEXTURES[the_part.material](canvas, draws)
    canvas.whole().shade((texture * cover >> 8) - (rim * 90 >> 8))


def _light(canvas: Canvas, the_part: Part) -> None:
    """Brightness that changes evenly across the image."""
    away = 2 * np.arange(SIZE, dtype=np.int32) - (SIZE - 1)
    along_x, along_y = the_part.scene.light
    canvas.whole().shade((away[None, :] * along_x + away[:, None] * along_y) // SIZE)


def _blur(canvas: Canvas, the_part: Part) -> None:
    """A 3x3 binomial kernel, mixed with the sharp picture; the border repeats."""
    if not the_part.scene.blur:
        return
    sharp = np.pad(canvas.pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (sharp[:-2] + 2 * sharp[1:-1] + sharp[2:]) >> 2
    soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) >> 2
    canvas.pixels += (soft - canvas.pixels) * the_part.scene.blur >> 2


def _expose(canvas: Canvas, the_part: Part, draws: Draws) -> Image.Image:
    """Sensor noise (triangular, each channel its own), rounding and clipping to eight bits."""
    count = canvas.pixels.size
    noise = draws.bytes(2 * count).reshape(2, SIZE, SIZE, 3).sum(axis=0, dtype=np.int32) - 255
    levels = canvas.pixels + (noise * (the_part.scene.noise * LEVEL) >> 8)
    return Image.fromarray(np.clip((levels + LEVEL // 2) // LEVEL, 0, 255).astype(np.uint8))


def draw(subject: Part | int) -> Image.Image:
    """The picture of a part, or of the part that a seed names: RGB, 96x96."""
    the_part = part(subject) if isinstance(subject, int) else subject
    draws = Draws(TEXTURE_STREAM, the_part.seed)
    canvas = Canvas(the_part.centre, the_part.turn)
    _lay_background(canvas, the_part, draws)
    _lay_plate(canvas, the_part, draws)
    for hole in the_part.holes:
        features.draw_hole(canvas, hole, the_part.scene.background)
    for screw in the_part.screws:
        features.draw_screw(canvas, screw, the_part.scene.background)
    if the_part.defect:
        features.DEFECT_LOOKS[the_part.defect.kind](canvas, the_part.defect)
    if the_part.label:
        features.draw_label(canvas, the_part.label)
    _light(canvas, the_part)
    _blur(canvas, the_part)
    return _expose(canvas, the_part, draws)
