"""EXIF orientation: all eight, in every format that carries it, on and off; damaged data are not fatal."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from edgevlm_runtime.images import LoadOptions, load_image
from tests.support.pictures import png_with_chunk

ORIENTATION = 0x0112
Pixels = NDArray[np.uint8]
SHOWN: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""The picture to be seen, of the pixels stored: the table of the EXIF standard (where row 0 and column 0 lie)."""
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF compressed": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 100},
}
OFF = LoadOptions(apply_exif_orientation=False)


def blocks() -> Pixels:
    """Flat blocks of colours that differ, 3 rows and 2 columns of 16 x 16: any codec keeps them apart."""
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [220, 220, 40], [40, 220, 220], [120, 120, 120]])
    return np.kron(colours.reshape(3, 2, 3), np.ones((16, 16, 1))).astype(np.uint8)


def photo(stored: Image.Image, format_: str, orientation: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, format_.split(maxsplit=1)[0], exif=exif, **FORMATS[format_])
    return buffer.getvalue()


def assert_same(picture: Image.Image, expected: Pixels) -> None:
    assert picture.size == (expected.shape[1], expected.shape[0])
    difference = float(np.abs(np.asarray(picture).astype(int) - expected).mean())
    assert difference <= 6  # codecs smear edges; any other turn is off by 60 and more


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_orientation_in_every_format(format_: str, orientation: int, tmp_path: Path) -> None:
    if format_ == "AVIF" and not features.check("avif"):
        pytest.skip("not in this build of Pillow")
    data = photo(Image.fromarray(blocks()), format_, orientation)
    file = tmp_path / "photo"
    file.write_bytes(data)
    for source in (data, file):
        assert_same(load_image(source), SHOWN[orientation](blocks()))
        assert_same(load_image(source, OFF), blocks())


@pytest.mark.parametrize("orientation", SHOWN)
def test_deep_pictures_are_turned_as_well(orientation: int) -> None:
    grey = blocks()[..., 0]
    data = photo(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF", orientation)
    for options, expected in ((LoadOptions(), SHOWN[orientation](grey)), (OFF, grey)):
        np.testing.assert_array_equal(np.asarray(load_image(data, options))[..., 0], expected)


@pytest.mark.parametrize("orientation", [0, 9, 65_000])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
def test_orientations_that_there_are_not(format_: str, orientation: int) -> None:
    assert_same(load_image(photo(Image.fromarray(blocks()), format_, orientation)), blocks())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("length", range(0, 40, 3))
def test_damaged_exif_is_not_fatal(length: int) -> None:
    whole = Image.Exif()
    whole[ORIENTATION] = 6
    data = whole.tobytes().removeprefix(b"Exif\0\0")
    wrong = data[:4] + struct.pack("<I", 0xFFFFFF00) + data[8:]
    for exif in (data[:length], wrong[:length], b"Exif\0\0" + data[:length], bytes(reversed(data[:length]))):
        picture = load_image(png_with_chunk(Image.fromarray(blocks()), b"eXIf", exif))
        assert picture.size in ((32, 48), (48, 32))


def test_exif_that_nobody_can_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert_same(load_image(png_with_chunk(Image.fromarray(blocks()), b"eXIf", b"nothing of the kind")), blocks())
    assert "its EXIF data are damaged" in caplog.text


def test_it_is_told_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    file.write_bytes(photo(Image.fromarray(blocks()), "JPEG", 6))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            load_image(file)
            load_image(file, OFF)
    turned, left = caplog.records
    assert turned.levelno == logging.INFO
    assert "phone.jpg: turned upright, as its EXIF orientation (6) says" in turned.message
    assert left.levelno == logging.WARNING
    assert "phone.jpg: taken as its pixels lie" in left.message
    assert "--exif-orientation" in left.message


def test_a_pil_image_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """As `processor(images=Image.open(path))` of transformers does; the caller may have turned it already."""
    data = photo(Image.fromarray(blocks()), "PNG", 6)
    with caplog.at_level(logging.INFO):
        assert_same(load_image(Image.open(io.BytesIO(data))), blocks())
    assert "a PIL image with an EXIF orientation (6) is taken as it is" in caplog.text
    assert "ImageOps.exif_transpose" in caplog.text
