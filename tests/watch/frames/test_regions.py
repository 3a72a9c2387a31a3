"""Boxes and masks, against pictures whose every pixel is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.frames import regions
from edgevlm.watch.frames.regions import Region, check, cut, load_mask
from edgevlm_runtime.errors import EdgeVLMError, ImageError


@pytest.fixture
def pixels():
    """60 x 40, every pixel another colour, none black."""
    y, x = np.mgrid[:40, :60]
    return np.stack([x + 1, y + 1, (x + y) + 1], axis=2).astype(np.uint8)


def mask_file(folder: Path, size: tuple[int, int], black: tuple[int, int, int, int], name: str = "mask.png") -> Path:
    picture = Image.new("RGB", size, "white")
    picture.paste((0, 0, 0), black)
    picture.save(folder / name)
    return folder / name


def test_a_box_in_pixels_and_in_shares(pixels):
    expected = pixels[10:30, 15:45]
    np.testing.assert_array_equal(cut(pixels, Region(name="r", box=(15, 10, 45, 30))), expected)
    np.testing.assert_array_equal(cut(pixels, Region(name="r", box=(0.25, 0.25, 0.75, 0.75))), expected)
    np.testing.assert_array_equal(cut(pixels, Region(name="r")), pixels)
    np.testing.assert_array_equal(cut(pixels, Region(name="r", box=(0, 0, 1, 1))), pixels)


def test_what_is_black_in_the_mask_is_blackened_and_the_frame_left_alone(pixels, tmp_path):
    kept = pixels.copy()
    region = Region(name="r", box=(10, 10, 50, 30), mask=mask_file(tmp_path, (60, 40), (20, 15, 30, 25)))
    found = cut(pixels, region, load_mask(region.mask))
    expected = kept.copy()
    expected[15:25, 20:30] = 0
    np.testing.assert_array_equal(found, expected[10:30, 10:50])
    np.testing.assert_array_equal(cut(pixels, region), found)
    np.testing.assert_array_equal(pixels, kept)


def test_a_mask_kept_as_jpeg(pixels, tmp_path):
    region = Region(name="r", mask=mask_file(tmp_path, (60, 40), (16, 8, 32, 24), "mask.jpg"))
    black = (cut(pixels, region) == 0).all(axis=2)
    assert black[8:24, 16:32].all()
    assert black.sum() == 16 * 16


@pytest.mark.parametrize("corners", [((10, 10), (30, 10), (30, 30)), ((1 / 6, 0.25), (0.5, 0.25), (0.5, 0.75))])
def test_a_polygon_in_pixels_or_shares(pixels, corners):
    black = (cut(pixels, Region(name="r", polygons=(corners,))) == 0).all(axis=2)
    y, x = np.mgrid[:40, :60]
    inside = (x < 29) & (y > 11) & (x - 10 > (y - 10) + 1)
    outside = (x > 31) | (y < 9) | (x - 10 < (y - 10) - 2)
    assert black[inside].all()
    assert not black[outside].any()


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0, 0, 61, 40), "not inside the frame, which is 60x40"),
        ((-1, 0, 30, 40), "not inside"),
        ((30, 0, 30, 40), "empty"),
        ((40, 0, 30, 40), "empty"),
        ((0.5, 0.5, 0.5, 0.9), "empty"),
        ((-0.5, 0, 0.5, 1), "not inside"),
    ],
)
def test_an_impossible_box_is_one_line(pixels, box, said):
    for call in (
        lambda: check(Region(name="lid", box=box), (60, 40)),
        lambda: cut(pixels, Region(name="lid", box=box)),
    ):
        with pytest.raises(EdgeVLMError, match=f"^region lid: .*{said}") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_says_both(pixels, tmp_path):
    region = Region(name="lid", mask=mask_file(tmp_path, (64, 48), (0, 0, 5, 5)))
    with pytest.raises(EdgeVLMError, match=r"mask\.png is 64x48, and the frames are 60x40"):
        check(region, (60, 40))
    with pytest.raises(EdgeVLMError, match="64x48"):
        cut(pixels, region, load_mask(region.mask))
    check(region, (64, 48))


def test_a_polygon_of_two_corners(pixels):
    with pytest.raises(EdgeVLMError, match="3 corners"):
        cut(pixels, Region(name="r", polygons=(((0, 0), (5, 5)),)))


def test_a_mask_that_is_no_picture(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="not an image"):
        load_mask(tmp_path / "mask.png")


def test_a_polygon_is_drawn_once(pixels):
    region = Region(name="r", polygons=(((1, 1), (7, 1), (7, 9)),))
    cut(pixels, region)
    before = regions._drawn.cache_info().misses
    cut(pixels, region)
    assert regions._drawn.cache_info().misses == before
