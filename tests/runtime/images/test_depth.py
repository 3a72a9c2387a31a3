"""Pictures of more than 8 bits per sample: by what the file says, by what the caller says, else by the whole range."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images import LoadOptions, load_image
from tests.support.pictures import png_with_chunk, tiff

Grey = NDArray[np.uint8]
MAX, S_MIN, S_MAX = 281, 340, 341


def scene(seed: int = 0, height: int = 9, width: int = 14) -> Grey:
    """Grey levels of a picture, black and white among them."""
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    grey[0, :2] = 0, 255
    return grey


def at_depth(grey: Grey, bits: int) -> NDArray[np.uint32]:
    """What a sensor of that many bits would have given."""
    return np.rint(grey * ((2**bits - 1) / 255)).astype(np.uint32)


def levels(data: bytes | Image.Image, bits: int | None = None) -> NDArray[np.int64]:
    """What the model sees, [height, width]; grey stays grey."""
    pixels = np.asarray(load_image(data, LoadOptions(bit_depth=bits))).astype(np.int64)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def saved(image: Image.Image, format_: str, **parameters: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **parameters)
    return buffer.getvalue()


def pgm(values: NDArray[Any], most: int) -> bytes:
    height, width = values.shape
    return f"P5 # a comment\n{width}\t{height}\n# another\n{most}\n".encode() + values.astype(">u2").tobytes()


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(8, 16), seed=st.integers(0, 999), endian=st.sampled_from("<>"), tag=st.sampled_from([MAX, S_MAX])
)
def test_a_tiff_that_says_its_depth(bits: int, seed: int, endian: str, tag: int) -> None:
    grey = scene(seed)
    values = at_depth(grey, bits)
    data = tiff(values.astype(np.uint16), endian=endian, tags={tag: 2**bits - 1})
    assert np.abs(levels(data) - grey).max() <= 1


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(8, 16), seed=st.integers(0, 999), wide=st.booleans())
def test_a_depth_that_the_caller_gives(bits: int, seed: int, wide: bool) -> None:
    grey = scene(seed)
    values = at_depth(grey, bits)
    files = [tiff(values.astype(kind)) for kind in (np.uint16, np.uint32, np.int32, np.float32)]
    files += [saved(Image.fromarray(values.astype(np.uint16)), "PNG"), pgm(values, 65535)]
    for data in files[2:4] if wide else files:
        assert np.abs(levels(data, bits) - grey).max() <= 1


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(8, 16), seed=st.integers(0, 999), endian=st.sampled_from("<>"))
def test_bits_shifted_to_the_top_of_sixteen(bits: int, seed: int, endian: str) -> None:
    """As most cameras deliver 10, 12 or 14 bits: the whole range of the type is right within the lowest bits."""
    grey = scene(seed)
    values = (at_depth(grey, bits) << (16 - bits)).astype(np.uint16)
    for data in (tiff(values, endian=endian), saved(Image.fromarray(values), "PNG"), Image.fromarray(values)):
        found = levels(data)
        assert np.abs(found - grey).max() <= 1
        assert abs(found.mean() - grey.mean()) <= 1


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), kind=st.sampled_from([np.uint16, np.int16, np.int8, np.uint32, np.int32]), inverted=st.booleans()
)
def test_the_whole_range_is_monotone(data: st.DataObject, kind: type[np.integer[Any]], inverted: bool) -> None:
    """A brighter sample is never darker to see, black is black, and white is white."""
    info = np.iinfo(kind)
    values = data.draw(st.lists(st.integers(info.min, info.max), min_size=2, max_size=30))
    row = np.array([[info.min, *values, info.max]], kind)
    inverted &= kind is np.uint16  # Pillow reads no other
    found = levels(tiff(row, photometric=int(not inverted)))[0]
    found = 255 - found if inverted else found
    assert (np.diff(found[np.argsort(row[0], kind="stable")]) >= 0).all()
    assert (found[0], found[-1]) == (0, 255)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_signed_samples_without_a_sign_begin_at_zero(bits: int, kind: type[np.signedinteger[Any]]) -> None:
    grey = scene()
    whole = at_depth(grey, np.iinfo(kind).bits - 1).astype(kind)
    assert np.abs(levels(tiff(whole)) - grey).max() <= 1
    if bits < np.iinfo(kind).bits:
        values = at_depth(grey, bits).astype(kind)
        assert np.abs(levels(tiff(values, tags={S_MAX: 2**bits - 1})) - grey).max() <= 1
        around = values - kind(2 ** (bits - 1))
        tags = {S_MIN: -(2 ** (bits - 1)), S_MAX: 2 ** (bits - 1) - 1}
        assert np.abs(levels(tiff(around, tags=tags)) - grey).max() <= 1
        assert np.abs(levels(tiff(around), bits) - grey).max() <= 1


def test_twelve_bits_packed() -> None:
    grey = scene(3, 6, 8)
    assert np.abs(levels(tiff(at_depth(grey, 12), bits=12)) - grey).max() <= 1


@pytest.mark.parametrize("bits", range(9, 17))
def test_formats_that_state_their_depth(bits: int) -> None:
    """PGM's greatest value and JPEG 2000's precision; a depth from the caller does not spoil what Pillow has scaled."""
    grey = scene()
    shifted = (at_depth(grey, bits) << (16 - bits)).astype(np.uint16)
    jpeg = saved(Image.fromarray(shifted), "JPEG2000", irreversible=False)
    for depth in (None, bits):
        assert np.abs(levels(pgm(at_depth(grey, bits), 2**bits - 1), depth) - grey).max() <= 1
        assert np.abs(levels(jpeg, depth) - grey).max() <= 1


@pytest.mark.parametrize("fill", ["zeros", "repeated", "scaled"])
@pytest.mark.parametrize("bits", range(9, 17))
def test_png_with_significant_bits(bits: int, fill: str, caplog: pytest.LogCaptureFixture) -> None:
    """A writer that does what the format asks for has scaled to 16 bits, in one of these ways."""
    for grey in (scene(), scene() // 20):  # dark, too: the file says that all bits are used
        sample = at_depth(grey, bits)
        ways = {
            "zeros": sample << (16 - bits),
            "repeated": (sample << (16 - bits)) | (sample >> (2 * bits - 16)),
            "scaled": np.rint(sample * (65535 / (2**bits - 1))),
        }
        data = png_with_chunk(Image.fromarray(ways[fill].astype(np.uint16)), b"sBIT", bytes([bits]))
        assert np.abs(levels(data) - grey).max() <= 1
    assert caplog.text == ""


@pytest.mark.parametrize("bits", range(9, 16))
def test_png_that_has_its_significant_bits_at_the_bottom(bits: int) -> None:
    grey = scene()
    data = png_with_chunk(Image.fromarray(at_depth(grey, bits).astype(np.uint16)), b"sBIT", bytes([bits]))
    assert np.abs(levels(data) - grey).max() <= 1


@pytest.mark.parametrize(("share", "level"), [(0.3, logging.WARNING), (1.0, logging.INFO)])
def test_an_assumed_depth_is_told_once_with_the_way_out(
    share: float, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With the highest bit in use there is little doubt."""
    values = (at_depth(scene(), 16) * share).astype(np.uint16)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert levels(tiff(values)).max() == round(255 * share)
    (record,) = caplog.records
    assert record.levelno == level
    told = record.getMessage()
    for words in (
        "how many of its 16 bits",
        "65535 is taken as white",
        f"{values.max()}",
        "--image-depth",
        "image_bit_depth",
    ):
        assert words in told


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(8, 14), seed=st.integers(0, 999), stored=st.sampled_from([np.uint16, np.uint32, np.int32]))
def test_fewer_bits_than_there_are_without_a_word(bits: int, seed: int, stored: type[np.integer[Any]]) -> None:
    """They would come out dark: refused, with the depth that they fit; with that, or with all bits, they are read."""
    grey, info = scene(seed), np.iinfo(stored)
    values = at_depth(grey, bits).astype(stored)
    png = [saved(Image.fromarray(values), "PNG")] if stored is np.uint16 else []
    for source in (tiff(values), *png):
        with pytest.raises(ImageError, match=r"values fit into \d+: give --image-depth") as refused:
            load_image(source)
        named = int(str(refused.value).split("--image-depth ")[1].split()[0])
        assert bits <= named <= bits + 1
        assert named > bits or np.abs(levels(source, named) - grey).max() <= 1
        assert levels(source, info.bits).max() == round(255 * (2**bits - 1) / (2**info.bits - 1))


def test_a_tag_that_is_wrong_clips_nothing(caplog: pytest.LogCaptureFixture) -> None:
    grey = scene()
    values = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(levels(tiff(values, tags={MAX: 255})), grey)
    assert "says that it has 8 bits, and has more" in caplog.text


FLOATS: dict[str, tuple[Callable[[Grey], NDArray[np.float32]], dict[int, float]]] = {
    "0 to 1": (lambda grey: (grey / 255).astype(np.float32), {}),
    "rounding outside": (lambda grey: (grey / 255 * 1.001 - 0.0005).astype(np.float32), {}),
    "tags": (lambda grey: (grey * 3.7 - 90).astype(np.float32), {S_MIN: -90.0, S_MAX: 255 * 3.7 - 90}),
    "tag of white": (lambda grey: grey.astype(np.float32), {S_MAX: 255.0}),
    "statistics of a dark picture": (lambda grey: (grey / 255).astype(np.float32), {S_MIN: 0.2, S_MAX: 0.7}),
}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("endian", "<>")
def test_floating_point(name: str, endian: str) -> None:
    grey = scene()
    make, tags = FLOATS[name]
    assert np.abs(levels(tiff(make(grey), endian=endian, tags=tags)) - grey).max() <= 1
    assert np.abs(255 - levels(tiff(make(grey), endian=endian, tags=tags, photometric=0)) - grey).max() <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40))
def test_floating_point_is_monotone(values: list[float]) -> None:
    row = np.array([values], np.float32)
    found = levels(tiff(row))[0]
    assert (np.diff(found[np.argsort(row[0], kind="stable")]) >= 0).all()
    assert np.abs(found - row[0] * 255).max() <= 0.51


REFUSED: dict[str, tuple[Callable[[Grey], bytes | Image.Image], int | None, str]] = {
    "float levels": (lambda grey: tiff(grey.astype(np.float32)), None, "from 0 to 255, and nothing says"),
    "negative floats": (lambda grey: tiff(grey.astype(np.float32) / 255 - 0.2), None, "nothing says which is white"),
    "float image": (lambda grey: Image.fromarray(grey.astype(np.float32)), None, "nothing says which is white"),
    "nan": (lambda grey: tiff(np.where(grey > 200, np.float32(np.nan), np.float32(0))), None, "not finite"),
    "infinite": (lambda grey: tiff(np.where(grey > 200, np.float32(np.inf), np.float32(0))), 12, "not finite"),
    "16 bits in 32": (lambda grey: tiff(grey.astype(np.uint32) * 257), None, "of its 32 bits are used"),
    "16 bits in signed 32": (lambda grey: Image.fromarray(grey.astype(np.int32) * 257), None, "--image-depth 16"),
    "tomography": (lambda grey: tiff(grey.astype(np.int16) * 8 - 1000), None, "how many of its 16 bits"),
    "colours of 12 bits, unsaid": (
        lambda grey: tiff(np.dstack([grey] * 3).astype(np.uint16) * 16), None, "the lower ones of its 16 bits",
    ),
    "more than said": (lambda grey: tiff(grey.astype(np.uint16) * 257), 12, "more than 12 bits hold"),
    "float more than said": (lambda grey: tiff(grey.astype(np.float32)), 4, "outside of 4 bits"),
    "colour of 12 bits": (
        lambda grey: tiff(np.dstack([grey] * 3).astype(np.uint16) * 16, tags={MAX: 4095}), None, "uses 12 of 16 bits",
    ),
    "colour, 12 bits asked": (lambda grey: tiff(np.dstack([grey] * 3).astype(np.uint16)), 12, "uses 12 of 16 bits"),
    "double": (lambda grey: tiff(grey.astype(np.float64)), None, "of a layout that is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused(name: str) -> None:
    make, bits, words = REFUSED[name]
    with pytest.raises(ImageError, match=words) as refused:
        load_image(make(scene()), LoadOptions(bit_depth=bits))
    assert "\n" not in str(refused.value)


def test_black_and_even_pictures_are_pictures() -> None:
    for value, seen in ((0, 0), (20_000, 78), (65_535, 255)):
        assert (levels(tiff(np.full((4, 5), value, np.uint16))) == seen).all()
    assert (levels(tiff(np.zeros((4, 5), np.int32))) == 0).all()
    assert (levels(tiff(np.zeros((4, 5), np.float32))) == 0).all()


@pytest.mark.parametrize("endian", "<>")
def test_sixteen_bits_per_colour(endian: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    files = [tiff(colours.astype(np.uint16) * 257, endian=endian)]
    files.append(tiff(colours.astype(np.uint16) * 257, endian=endian, tags={MAX: 65535}))
    for data in files:
        for bits in (None, 16):
            np.testing.assert_array_equal(np.asarray(load_image(data, LoadOptions(bit_depth=bits))), colours)


def test_a_transparent_grey_value_of_sixteen_bits() -> None:
    grey = scene()
    data = png_with_chunk(
        Image.fromarray(grey.astype(np.uint16) * 257),
        b"tRNS",
        (grey[3:4, 3].astype(np.uint16) * 257).astype(">u2").tobytes(),
    )
    np.testing.assert_array_equal(levels(data), np.where(grey == grey[3, 3], 255, grey))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("bits", [None, 12])
def test_eight_bits_are_left_alone(mode: str, bits: int | None, caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)).convert(mode)
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    for source in (image, *([saved(image, "TIFF")] if mode not in ("PA", "HSV") else [])):
        found = load_image(source, LoadOptions(bit_depth=bits))
        assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 3
    assert caplog.text == ""


def _pnm(kind: str, values: NDArray[Any]) -> bytes:
    height, width = values.shape[:2]
    return f"{kind}\n{width} {height}\n65535\n".encode() + values.astype(">u2").tobytes()


def _tiff_of_inks(values: NDArray[Any]) -> bytes:
    """CMYK of 16 bits per ink, uncompressed; Pillow cannot write it."""
    height, width, inks = values.shape
    words = {256: width, 257: height, 259: 1, 262: 5, 277: inks, 278: height}
    entries = 8
    start = 8 + 2 + 12 * entries + 4
    table = b"".join(
        struct.pack("<HHII", tag, 3 if tag in (259, 262, 277) else 4, 1, words[tag]) for tag in sorted(words)
    )
    bits = struct.pack("<HHII", 258, 3, inks, start)
    place = struct.pack("<HHII", 273, 4, 1, start + 2 * inks)
    rows = sorted([*(table[at : at + 12] for at in range(0, len(table), 12)), bits, place])
    rows.sort(key=lambda row: struct.unpack("<H", row[:2]))
    head = b"II*\0" + struct.pack("<IH", 8, entries) + b"".join(rows) + b"\0" * 4
    return head + struct.pack("<4H", *[16] * inks) + values.astype("<u2").tobytes()


DEEP_FILES = {
    "PGM": lambda grey: _pnm("P5", grey),
    "PPM": lambda grey: _pnm("P6", np.stack([grey] * 3, 2)),
    "CMYK TIFF": lambda grey: _tiff_of_inks(np.stack([grey] * 4, 2)),
}


@pytest.mark.parametrize("name", DEEP_FILES)
@pytest.mark.parametrize("bits", [10, 12])
def test_sixteen_stored_bits_say_nothing_of_those_used(name: str, bits: int) -> None:
    """65535 is what writers put into a header whatever their sensor has; inks have no header at all."""
    low = at_depth(scene(), bits).astype(np.uint16)
    with pytest.raises(ImageError, match=r"--image-depth|16 bits"):
        load_image(DEEP_FILES[name](low))
    full = at_depth(scene(), 16).astype(np.uint16)
    assert np.asarray(load_image(DEEP_FILES[name](full))).std() > 20
