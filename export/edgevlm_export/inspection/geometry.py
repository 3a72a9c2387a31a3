"""Shapes as integer coverage, without sines, square roots of floats or a drawing library.

Every function takes integer arrays ``u, v`` in sub-pixel units relative to the shape. Those named ``..._inside`` return
the signed distance to its edge, the others how much of each pixel it covers, 0 to 256, with an edge one pixel wide.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgevlm_export.inspection.parts import UNIT

Ints = npt.NDArray[np.int32]

ONE = 1 << 14
"""The fixed-point one of sines and cosines."""
DIRECTIONS = ((16, 0), (15, 6), (11, 11), (6, 15), (0, 16), (-6, 15), (-11, 11), (-15, 6))
"""Eight directions over half a turn, as integer vectors about 16 long."""


def rotation(turn: int) -> tuple[int, int]:
    """Cosine and sine, times ``ONE``, of the angle whose half has the tangent ``turn`` / 256."""
    whole = 65536 + turn * turn
    return (65536 - turn * turn) * ONE // whole, 512 * turn * ONE // whole


def coverage(inside: Ints) -> Ints:
    """Signed distance to the edge (positive inside, sub-pixel units) to coverage."""
    cover: Ints = np.clip(128 + inside * (256 // UNIT), 0, 256)
    return cover


def disc_inside(u: Ints, v: Ints, radius: int) -> Ints:
    """Signed distance to a circle, exact to first order at its edge: (r^2 - d^2) / 2r."""
    distance: Ints = (radius * radius - u * u - v * v) // (2 * radius)
    return distance


def disc(u: Ints, v: Ints, radius: int) -> Ints:
    return coverage(disc_inside(u, v, radius))


def box_inside(u: Ints, v: Ints, width: int, height: int) -> Ints:
    inside: Ints = np.minimum(width // 2 - np.abs(u), height // 2 - np.abs(v))
    return inside


def segment(u: Ints, v: Ints, start: tuple[int, int], end: tuple[int, int], half_width: int) -> Ints:
    """A straight stroke between two points."""
    du, dv = end[0] - start[0], end[1] - start[1]
    length = max(1, math.isqrt(du * du + dv * dv))
    along = (du * (u - start[0]) + dv * (v - start[1])) // length
    across = np.abs(du * (v - start[1]) - dv * (u - start[0])) // length
    inside = np.minimum(half_width - across, np.minimum(along, length - along) + half_width)
    return coverage(inside)


def plain_inside(u: Ints, v: Ints, width: int, height: int, corner: int) -> Ints:
    return box_inside(u, v, width, height)


def rounded_inside(u: Ints, v: Ints, width: int, height: int, corner: int) -> Ints:
    over_u, over_v = np.abs(u) - (width // 2 - corner), np.abs(v) - (height // 2 - corner)
    in_corner = (over_u > 0) & (over_v > 0)
    return np.where(in_corner, disc_inside(over_u, over_v, corner), corner - np.maximum(over_u, over_v))


def chamfered_inside(u: Ints, v: Ints, width: int, height: int, corner: int) -> Ints:
    cut = (width // 2 + height // 2 - corner - np.abs(u) - np.abs(v)) * 181 // 256  # 181 / 256 is 1 / sqrt(2)
    inside: Ints = np.minimum(box_inside(u, v, width, height), cut)
    return inside


PLATES = {"plain": plain_inside, "rounded": rounded_inside, "chamfered": chamfered_inside}
