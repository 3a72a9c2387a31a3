"""From a seed to a part: every choice that makes one part differ from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgevlm_export.inspection import parts, splits
from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspection.geometry import DIRECTIONS
from edgevlm_export.inspection.parts import SIZE, UNIT, Defect, Label, Part, Scene, Spot

PART_STREAM = 1
"""First word of the name of the stream that parts are drawn from; questions and textures have their own."""
HEALTHY_PERCENT = 36
LABEL_PERCENT = 60
CLEARANCE = 4 * UNIT
"""How far the middle of a defect stays from the lines of the 3x3 grid."""


@dataclass(frozen=True)
class _Box:
    """A place that is taken: middle and half extents."""

    u: int
    v: int
    half_u: int
    half_v: int

    def touches(self, other: _Box) -> bool:
        gap = 2 * UNIT
        apart_u = abs(self.u - other.u) >= self.half_u + other.half_u + gap
        apart_v = abs(self.v - other.v) >= self.half_v + other.half_v + gap
        return not (apart_u or apart_v)


class _NoRoom(Exception):
    """The features drawn so far leave no place for the next one."""


class _Plate:
    """The free room on one plate."""

    def __init__(self, draws: Draws, width: int, height: int) -> None:
        self.draws, self.width, self.height = draws, width, height
        self.taken: list[_Box] = []

    def anywhere(self, half_u: int, half_v: int) -> tuple[int, int]:
        """A free place for something of this half size, off the edge; it is then taken."""
        room_u, room_v = self.width // 2 - half_u - 3 * UNIT, self.height // 2 - half_v - 3 * UNIT
        for _ in range(40):
            box = _Box(self.draws.between(-room_u, room_u), self.draws.between(-room_v, room_v), half_u, half_v)
            if not any(box.touches(other) for other in self.taken):
                self.taken.append(box)
                return box.u, box.v
        raise _NoRoom

    def in_cell(self, reach: int) -> tuple[int, int]:
        """A place in one of the nine cells, each as likely, clear of the grid lines and the edge."""
        u, v = (self._in_third(extent, reach) for extent in (self.width, self.height))
        self.taken.append(_Box(u, v, reach, reach))
        return u, v

    def _in_third(self, extent: int, reach: int) -> int:
        third = self.draws.below(3) - 1
        middle, half = third * extent // 3, extent // 6
        low, high = middle - half + CLEARANCE, middle + half - CLEARANCE
        edge = extent // 2 - reach
        return self.draws.between(max(low, -edge), min(high, edge))


def _scratch(draws: Draws, reach: int) -> tuple[tuple[int, int], ...]:
    du, dv = draws.choice(DIRECTIONS)
    end = (du * reach // 16, dv * reach // 16)
    return ((-end[0], -end[1]), end)


def _crack(draws: Draws, reach: int) -> tuple[tuple[int, int], ...]:
    """Five points along a direction, thrown alternately to either side."""
    du, dv = draws.choice(DIRECTIONS)
    points = []
    for step in range(-2, 3):
        side = draws.between(24, 40) * (1 if step % 2 else -1)
        points.append((du * reach * step // 32 - dv * side // 16, dv * reach * step // 32 + du * side // 16))
    return tuple(points)


def _stain(draws: Draws, reach: int) -> tuple[tuple[int, int], ...]:
    return tuple((draws.between(-reach // 2, reach // 2), draws.between(-reach // 2, reach // 2)) for _ in range(3))


def _none(draws: Draws, reach: int) -> tuple[tuple[int, int], ...]:
    return ()


_SHAPES: dict[str, tuple[tuple[int, int], Callable[[Draws, int], tuple[tuple[int, int], ...]]]] = {
    "scratch": ((7 * UNIT, 10 * UNIT), _scratch),
    "dent": ((5 * UNIT, 7 * UNIT), _none),
    "stain": ((6 * UNIT, 8 * UNIT), _stain),
    "crack": ((7 * UNIT, 10 * UNIT), _crack),
    "missing screw": ((76, 84), _none),
}
"""Least and greatest reach of each defect, and what draws its strokes."""


def _defect(plate: _Plate, kind: str | None) -> Defect | None:
    if kind is None:
        return None
    (least, most), shape = _SHAPES[kind]
    reach = plate.draws.between(least, most)
    u, v = plate.in_cell(reach)
    return Defect(kind, u, v, reach, shape(plate.draws, reach))


def _code(draws: Draws, split: str) -> str:
    while True:
        code = f"{draws.choice(parts.CODE_LETTERS)}{draws.below(100):02d}"
        if split != "train" or not splits.held_out(code):
            return code


def _label(plate: _Plate, split: str) -> Label | None:
    if not plate.draws.chance(LABEL_PERCENT):
        return None
    dot = plate.draws.between(27, 31)
    u, v = plate.anywhere(19 * dot // 2, 9 * dot // 2)
    return Label(_code(plate.draws, split), u, v, dot)


def _spots(plate: _Plate, count: int, radius: int) -> tuple[Spot, ...]:
    """Spots of about one size, in reading order, so that equal parts are equal objects."""
    found = []
    for _ in range(count):
        u, v = plate.anywhere(radius, radius)
        found.append(Spot(u, v, radius, plate.draws.below(len(DIRECTIONS))))
    return tuple(sorted(found, key=lambda spot: (spot.v, spot.u)))


@dataclass(frozen=True)
class _Features:
    defect: Defect | None
    label: Label | None
    holes: tuple[Spot, ...]
    screws: tuple[Spot, ...]


def _features(draws: Draws, width: int, height: int, split: str) -> _Features:
    """Defect, label and fixtures, drawn again from the start when they do not fit."""
    kind = None if draws.chance(HEALTHY_PERCENT) else draws.choice(parts.DEFECTS)
    screwed = kind == "missing screw" or draws.chance(50)
    count = draws.between(0, parts.MOST_FIXTURES)
    radius = draws.between(76, 88) if screwed else draws.between(64, 80)
    while True:
        plate = _Plate(draws, width, height)
        try:
            defect, label = _defect(plate, kind), _label(plate, split)
            spots = _spots(plate, count, radius)
        except _NoRoom:
            continue
        return _Features(defect, label, holes=() if screwed else spots, screws=spots if screwed else ())


def _scene(draws: Draws) -> Scene:
    grey = draws.between(30, 215)
    red, green, blue = (grey + draws.between(-12, 12) for _ in range(3))
    return Scene(
        background=(red, green, blue),
        stripes=draws.choice((0, 0, 6, 9, 14)),
        light=(draws.between(-50, 50), draws.between(-50, 50)),
        noise=draws.between(2, 12),
        blur=draws.below(4),
    )


def part(seed: int) -> Part:
    """The part that a seed names."""
    split = splits.split_of(seed)
    draws = Draws(PART_STREAM, seed)
    colour = draws.choice(tuple(parts.COLOURS))
    red, green, blue = (level + draws.between(-14, 14) for level in parts.COLOURS[colour])
    width, height = draws.between(74 * UNIT, 90 * UNIT), draws.between(74 * UNIT, 90 * UNIT)
    features = _features(draws, width, height, split)
    middle, shift = SIZE * UNIT // 2, (SIZE * UNIT - max(width, height)) // 2
    return Part(
        seed=seed,
        colour=colour,
        rgb=(red, green, blue),
        material=draws.choice(parts.MATERIALS),
        outline=draws.choice(parts.OUTLINES),
        width=width,
        height=height,
        corner=draws.between(6 * UNIT, 10 * UNIT),
        centre=(middle + draws.between(-shift, shift), middle + draws.between(-shift, shift)),
        turn=draws.between(-27, 27),
        holes=features.holes,
        screws=features.screws,
        defect=features.defect,
        label=features.label,
        scene=_scene(draws),
    )
