"""Decoding: every source gives the same pixels, and everything that is not an image gives one line."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images import LoadOptions, load_image, rgb


def picture(width: int = 13, height: int = 7, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **parameters: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **parameters)
    return buffer.getvalue()


def refused(source: Any, words: str, options: LoadOptions | None = None) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        load_image(source, options or LoadOptions())
    assert "\n" not in str(raised.value)


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header for a huge image in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "bytearray", "memoryview", "image", "array", "strided"])
def test_every_source_gives_the_same_pixels(tmp_path: Path, kind: str) -> None:
    image = picture()
    data, path = encoded(image), tmp_path / "part.png"
    path.write_bytes(data)
    sources: dict[str, Callable[[], Any]] = {
        "path": lambda: path,
        "text path": lambda: str(path),
        "bytes": lambda: data,
        "bytearray": lambda: bytearray(data),
        "memoryview": lambda: memoryview(data),
        "image": lambda: Image.open(io.BytesIO(data)),
        "array": lambda: np.asarray(image),
        "strided": lambda: np.repeat(np.asarray(image), 2, axis=1)[:, ::2],
    }
    loaded = load_image(sources[kind]())
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(image))


def test_transparency_is_composited_onto_white() -> None:
    half = Image.new("RGBA", (1, 1), (0, 0, 255, 0))
    assert load_image(half).getpixel((0, 0)) == (255, 255, 255)
    keyed = encoded(Image.new("RGB", (1, 1), (9, 9, 9)), transparency=(9, 9, 9))
    assert load_image(keyed).getpixel((0, 0)) == (255, 255, 255)


def test_the_file_may_go_away_after_loading(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(encoded(picture()))
    loaded = load_image(path)
    path.unlink()
    assert np.asarray(loaded).shape == (7, 13, 3)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not an image\n" * 100)
    refused(text, r"not an image, or in a format that is not supported: .*notes\.txt")
    refused(tmp_path / "missing.png", r"no such image file: .*missing\.png")
    refused(tmp_path, "not an image but a folder")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "image file is empty")
    refused("https://example.org/part.png", "not fetched from addresses")
    refused("a\0b.png", "cannot read image file")
    refused(b"", "image file is empty")
    refused(None, "cannot use NoneType as an image")
    refused(3.5, "cannot use float as an image")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files(format_: str, share: float) -> None:
    data = encoded(picture(64, 64), format_)
    refused(data[: int(len(data) * share)], "damaged image|not an image")


def test_a_truncated_image_object() -> None:
    refused(Image.open(io.BytesIO(encoded(picture(64, 64), "JPEG")[:800])), "damaged image: PIL image")


@pytest.mark.parametrize("size", [(12_000, 9_000), (60_000, 60_000), (2_000_000_000, 1)])
def test_decompression_bombs(size: tuple[int, int]) -> None:
    """Between Pillow's limit, where it only warns, and twice that, where it refuses: an error and no warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refused(bomb(*size), "too many pixels")
    assert not said


def test_limits_are_options() -> None:
    image = picture(20, 10)
    assert load_image(image, LoadOptions(max_pixels=200)).size == (20, 10)
    for source in (image, encoded(image), np.asarray(image)):
        refused(source, r"too many pixels to process safely \(20 x 10, limit 199\)", LoadOptions(max_pixels=199))
    refused(encoded(image), "image too large", LoadOptions(max_bytes=50))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(encoded(picture()))
    refused(path, r"image file too large \(\d+ bytes, limit 20\): .*part\.png", LoadOptions(max_bytes=20))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_arrays_of_another_form(array: Any) -> None:
    refused(array, f"must be uint8 of shape height x width x 3, not {array.dtype}")
    if array.dtype != np.uint8:
        refused(array, "scale it to 0 to 255 first")


def test_empty_images() -> None:
    refused(np.zeros((0, 5, 3), np.uint8), r"empty \(5 x 0 pixels\)")
    refused(Image.new("RGB", (0, 3)), r"empty \(0 x 3 pixels\)")


def test_formats_that_start_another_program() -> None:
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(header)).format == "EPS"
    refused(header, "not an image")


def test_files_without_an_end(tmp_path: Path) -> None:
    """Devices and pipes say that they have no bytes, and then give any number, or none for ever."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), Path("/dev/null")):
        refused(path, "not a regular file")


def test_a_file_that_grows_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(b"x" * 100)
    small = os.stat_result((0o100644, 0, 0, 1, 0, 0, 10, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: small)
    refused(path, r"image too large \(51 bytes, limit 50\)", LoadOptions(max_bytes=50))


SAVED = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "BLP", "DDS", "TGA", "PCX")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format_", SAVED)
def test_damaged_bytes(format_: str) -> None:
    """Whatever the decoder does with them: an image, or one line."""
    Image.init()
    if format_ not in Image.SAVE:
        pytest.skip("not in this build of Pillow")
    mode = "P" if format_ == "BLP" else "RGB"
    data, rng = encoded(picture(24, 31).convert(mode), format_), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), int(rng.choice([40, 200, len(data)]))), int(rng.integers(1, 6))):
            damaged[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        outcome = _outcome(bytes(damaged))
        assert outcome == "RGB" or "image" in outcome
        assert "\n" not in outcome


def _outcome(data: bytes) -> str:
    """The mode of the image, or what is wrong with it."""
    try:
        return load_image(data).mode
    except ImageError as error:
        return str(error)


def test_a_decoder_that_fails_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Image.Image) -> None:
        raise RuntimeError("decoder\nfailed")

    monkeypatch.setattr(ImageFile.ImageFile, "load", failing)
    refused(encoded(picture()), "damaged image: .*decoder failed")


def test_formats_hardly_anyone_uses() -> None:
    for format_ in ("BLP", "DDS"):
        refused(encoded(picture().convert("P" if format_ == "BLP" else "RGB"), format_), "not an image, or in a format")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
@pytest.mark.parametrize("strip", [1, 26, 10_000])
def test_strips_give_the_bytes_of_the_whole(mode: str, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (7, 13, 1), np.uint8)
    image = Image.fromarray(np.concatenate([np.asarray(picture()), alpha], axis=2)).convert(mode)
    if "A" not in mode:
        image.info["transparency"] = (9, 9, 9) if mode == "RGB" else 3
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    monkeypatch.setattr(rgb, "_STRIP_PIXELS", strip)
    assert load_image(image).tobytes() == whole.tobytes()
