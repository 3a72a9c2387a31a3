"""Small defects are seen, noise and light are not: on the pictures of the inspection data set."""

from __future__ import annotations

import dataclasses
import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.frames.change import CELLS, difference, signature
from edgevlm_export import inspection

SEEN = 0.04
"""Between the two, as the module's figures say."""
DEFECTS = ("scratch", "missing screw", "crack", "dent", "stain")


@cache
def parts(kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts without and with their defect, all else equal."""
    of_kind = (part for seed in inspection.seeds("validation") if (part := inspection.part(seed)).defect)
    chosen = [part for part, _ in zip((p for p in of_kind if p.defect.kind == kind), range(12), strict=False)]
    return [
        (np.asarray(inspection.draw(dataclasses.replace(part, defect=None))), np.asarray(inspection.draw(part)))
        for part in chosen
    ]


def noisy(pixels: np.ndarray, levels: float, seed: int) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, levels, pixels.shape).round()
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC))


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("size", [np.asarray, enlarged])
@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_is_seen_through_noise(kind, size):
    for number, (good, bad) in enumerate(parts(kind)):
        a, b = signature(noisy(size(good), 3, number)), signature(noisy(size(bad), 3, number + 1000))
        assert difference(a, b) > SEEN, number


@pytest.mark.parametrize("size", [np.asarray, enlarged])
@pytest.mark.parametrize("levels", [2, 4, 6])
def test_noise_of_a_few_levels_is_not(levels, size):
    for number, (good, _) in enumerate(parts("scratch") + parts("dent")):
        before = signature(size(good))
        assert difference(before, signature(noisy(size(good), levels, number))) < SEEN * 0.75


def test_compression_is_not():
    for good, _ in parts("scratch"):
        assert difference(signature(good), signature(as_jpeg(good))) < SEEN * 0.75


def test_a_lamp_a_little_brighter_is_not_and_one_that_went_out_is():
    middle = np.clip(parts("dent")[0][0], 40, 200)
    before = signature(middle)
    assert difference(before, signature(middle + np.uint8(15))) < 0.002
    assert difference(before, signature(middle - np.uint8(15))) < 0.002
    flat = np.full((96, 96, 3), 128, np.uint8)
    assert difference(signature(flat), signature(np.zeros_like(flat))) > 0.3


def test_a_corner_of_one_cell_is_as_much_as_one_in_the_middle():
    plain = np.full((480, 640, 3), 100, np.uint8)
    for top, left in ((0, 0), (470, 620), (240, 320)):
        marked = plain.copy()
        marked[top : top + 24, left : left + 30] = 255
        assert difference(signature(plain), signature(marked)) > 0.1


def test_ends_of_the_scale():
    black, white = np.zeros((50, 70, 3), np.uint8), np.full((50, 70, 3), 255, np.uint8)
    half = black.copy()
    half[:, 35:] = 255
    assert difference(signature(black), signature(black)) == 0
    assert difference(signature(black), signature(half)) == pytest.approx(1, abs=0.1)
    assert difference(signature(black), signature(white)) > 0.9
    assert difference(signature(black), signature(white)) == difference(signature(white), signature(black))


def test_pictures_of_any_size():
    for height, width in ((1, 1), (2, 100), (1080, 1920), (64, 64)):
        pixels = np.full((height, width, 3), 90, np.uint8)
        found = signature(pixels)
        assert found.dtype == np.float32
        assert found.shape == (min(height, CELLS), min(width, CELLS))
        assert difference(found, found) == 0
    assert difference(signature(np.zeros((9, 9, 3), np.uint8)), signature(np.zeros((8, 9, 3), np.uint8))) == 1
