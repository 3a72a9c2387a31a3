"""What is said about a part can be seen in its picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_export import inspection
from edgevlm_export.inspection import Part, geometry, glyphs
from edgevlm_export.inspection.canvas import Canvas
from edgevlm_export.inspection.parts import CODE_LETTERS, DEFECTS, LOCATIONS, SIZE, UNIT

PARTS = st.integers(0, 101_999_999).map(inspection.part)


def pixels(part: Part) -> npt.NDArray[np.int32]:
    return np.asarray(inspection.draw(part)).astype(np.int32)


def changed(one: Part, other: Part) -> npt.NDArray[np.bool_]:
    """``[96, 96]``: where two pictures of the same seed differ clearly."""
    clearly: npt.NDArray[np.bool_] = np.abs(pixels(one) - pixels(other)).max(axis=2) > 12
    return clearly


@settings(max_examples=25, deadline=None)
@given(PARTS)
def test_pictures_are_rgb_of_96_pixels(part: Part) -> None:
    image = inspection.draw(part)
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
    assert len(np.unique(np.asarray(image))) > 20


@settings(max_examples=60, deadline=None)
@given(PARTS)
def test_a_defect_changes_the_picture_only_where_it_is(part: Part) -> None:
    if part.defect is None:
        return
    difference = changed(part, replace(part, defect=None))
    x, y = Canvas(part.centre, part.turn).in_image(part.defect.u, part.defect.v)
    rows, columns = np.nonzero(difference)
    assert len(rows) >= 6
    assert np.abs(columns * UNIT - x).max() < part.defect.reach + 6 * UNIT
    assert np.abs(rows * UNIT - y).max() < part.defect.reach + 6 * UNIT


@settings(max_examples=60, deadline=None)
@given(PARTS)
def test_every_hole_and_screw_is_visible(part: Part) -> None:
    canvas = Canvas(part.centre, part.turn)
    for name in ("holes", "screws"):
        spots = getattr(part, name)
        for index, spot in enumerate(spots):
            without = replace(part, **{name: spots[:index] + spots[index + 1 :]})
            x, y = canvas.in_image(spot.u, spot.v)
            near = changed(part, without)[max(0, y // UNIT - 5) : y // UNIT + 6, max(0, x // UNIT - 5) : x // UNIT + 6]
            assert near.sum() >= 20


@given(PARTS)
def test_the_place_in_words_is_the_place_on_the_plate(part: Part) -> None:
    if part.defect is None or part.location is None:
        return
    column = min(2, max(0, int(3 * (part.defect.u / part.width + 0.5))))
    row = min(2, max(0, int(3 * (part.defect.v / part.height + 0.5))))
    assert part.location == LOCATIONS[row][column]


@given(PARTS)
def test_nothing_overlaps(part: Part) -> None:
    spots = [*part.holes, *part.screws]
    for index, one in enumerate(spots):
        for other in spots[index + 1 :]:
            distance = ((one.u - other.u) ** 2 + (one.v - other.v) ** 2) ** 0.5
            assert distance > one.radius + other.radius
        if part.label:
            beside = abs(one.u - part.label.u) > one.radius + 9 * part.label.dot
            above = abs(one.v - part.label.v) > one.radius + 4 * part.label.dot
            assert beside or above


def test_places_and_defects_are_evenly_spread() -> None:
    found = [part for seed in range(4000) if (part := inspection.part(seed)).defect]
    kinds = [part.defect.kind for part in found if part.defect]
    for kind in DEFECTS:
        assert 0.16 < kinds.count(kind) / len(kinds) < 0.24
    for place in (name for row in LOCATIONS for name in row):
        assert 0.08 < [part.location for part in found].count(place) / len(found) < 0.145


@pytest.mark.parametrize("turn", [-27, -5, 0, 13, 27])
def test_rotation_is_a_rotation(turn: int) -> None:
    cosine, sine = geometry.rotation(turn)
    assert cosine**2 + sine**2 == pytest.approx(geometry.ONE**2, rel=2e-4)
    angle = 2 * np.arctan(turn / 256)
    assert sine / geometry.ONE == pytest.approx(np.sin(angle), abs=1e-4)


def test_a_disc_has_the_area_of_a_disc() -> None:
    places = (np.arange(64, dtype=np.int32) - 32) * UNIT + UNIT // 2
    cover = geometry.disc(places[None, :], places[:, None], 20 * UNIT)
    assert cover.sum() / 256 == pytest.approx(np.pi * 20**2, rel=0.01)


def test_characters_differ_from_each_other_by_three_dots() -> None:
    assert set(CODE_LETTERS) <= set(glyphs.CHARACTERS)
    drawn = {character: glyphs.glyph(character) for character in glyphs.CHARACTERS}
    distances = {
        (one, other): int(np.abs(drawn[one] - drawn[other]).sum()) for one in drawn for other in drawn if one < other
    }
    assert min(distances.values()) >= 3, min(distances, key=lambda pair: distances[pair])
