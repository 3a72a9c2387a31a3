"""What a part is: everything that its picture shows and that questions can be asked about.

Lengths and places are integers in sixteenths of a pixel (``UNIT`` to the pixel). A place ``(u, v)`` is measured from
the middle of the plate along its own edges: u to the right, v downwards. The plate lies in the image at ``centre``,
turned.
"""

from __future__ import annotations

from dataclasses import dataclass

UNIT = 16
"""Sub-pixel steps per pixel."""
SIZE = 96
"""Width and height of an image, pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (178, 54, 48),
    "green": (60, 138, 74),
    "blue": (50, 92, 174),
    "yellow": (208, 174, 54),
    "purple": (130, 68, 152),
    "grey": (142, 146, 150),
}
MATERIALS = ("brushed", "cast", "moulded")
OUTLINES = ("plain", "rounded", "chamfered")
DEFECTS = ("scratch", "dent", "stain", "crack", "missing screw")
CODE_LETTERS = "ACEFHJKLMNPRTUVWXY"
"""Letters that cannot be taken for a digit: no B, D, G, I, O, Q, S, Z."""
LOCATIONS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
MOST_FIXTURES = 5
"""The largest number of holes or screws on a part."""


@dataclass(frozen=True)
class Spot:
    """A round feature: a drilled hole or a screw."""

    u: int
    v: int
    radius: int
    slot: int = 0
    """Direction of a screw's slot, an index into ``geometry.DIRECTIONS``."""


@dataclass(frozen=True)
class Defect:
    kind: str
    u: int
    v: int
    reach: int
    """Half the length of a scratch or crack, the radius of a dent, a stain or an empty screw seat."""
    strokes: tuple[tuple[int, int], ...]
    """Points of a scratch or crack, lobes of a stain, relative to (u, v)."""


@dataclass(frozen=True)
class Label:
    code: str
    u: int
    v: int
    dot: int
    """Size of one dot of the 5x7 characters."""


@dataclass(frozen=True)
class Scene:
    """What is not the part: background, light, lens and sensor."""

    background: tuple[int, int, int]
    stripes: int
    """Period of the conveyor's stripes in pixels, 0 for none."""
    light: tuple[int, int]
    """Change of brightness from the middle to the edge of the image along x and y, in 1/256."""
    noise: int
    """Greatest noise in grey levels."""
    blur: int
    """Share of a 3x3 binomial blur mixed in, in quarters."""


@dataclass(frozen=True)
class Part:
    seed: int
    colour: str
    rgb: tuple[int, int, int]
    material: str
    outline: str
    width: int
    height: int
    corner: int
    centre: tuple[int, int]
    turn: int
    """Tangent of half the angle of rotation, in 1/256 (27 is 12 degrees): its sine and cosine are rational."""
    holes: tuple[Spot, ...]
    screws: tuple[Spot, ...]
    defect: Defect | None
    label: Label | None
    scene: Scene

    @property
    def location(self) -> str | None:
        """Where the defect is, in words, on a 3x3 grid over the plate; None without a defect."""
        if self.defect is None:
            return None
        column = _third(self.defect.u, self.width)
        return LOCATIONS[_third(self.defect.v, self.height)][column]

    @property
    def code(self) -> str | None:
        """The printed code, None where the part has no label."""
        return self.label.code if self.label else None


def _third(place: int, extent: int) -> int:
    """0, 1 or 2: the third of ``extent`` (centred on zero) that ``place`` lies in."""
    return min(2, max(0, (2 * place + extent) * 3 // (2 * extent)))
