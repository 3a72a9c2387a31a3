"""Picture files that Pillow cannot write: deep TIFFs of any kind, PNGs that say how many bits they use."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_HEADER_END = 33
"""Signature (8) and the IHDR chunk (25)."""
KINDS = {"u": 1, "i": 2, "f": 3}
"""numpy's kind of a type to TIFF's SampleFormat."""


def tiff(
    array: NDArray[np.generic],
    *,
    endian: str = "<",
    photometric: int = 1,
    bits: int = 0,
    tags: dict[int, float] | None = None,
) -> bytes:
    """One uncompressed strip: [height, width] or [height, width, 3]. `tags`: SHORT or LONG for whole, FLOAT for others.

    `bits` 12 packs the values as TIFF has them; 0 takes the array's type.
    """
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    data = packed_12(array) if bits == 12 else array.astype(array.dtype.newbyteorder(endian)).tobytes()
    depth = bits or array.dtype.itemsize * 8
    offset = 8 + len(data) + len(data) % 2
    entries = {
        256: _long(endian, width),
        257: _long(endian, height),
        258: _shorts(endian, [depth] * samples),
        259: _shorts(endian, [1]),
        262: _shorts(endian, [2 if samples == 3 else photometric]),
        273: _long(endian, 8),
        277: _shorts(endian, [samples]),
        278: _long(endian, height),
        279: _long(endian, len(data)),
        339: _shorts(endian, [KINDS[array.dtype.kind]] * samples),
    }
    for tag, value in (tags or {}).items():
        whole = isinstance(value, int)
        kind, form = (4, "I") if whole and value >= 0 else (9, "i") if whole else (11, "f")
        entries[tag] = (kind, 1, struct.pack(endian + form, value))
    beyond, directory = b"", struct.pack(endian + "H", len(entries))
    after = offset + 2 + 12 * len(entries) + 4
    for tag, (kind, count, content) in sorted(entries.items()):
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack(endian + "I", after + len(beyond))
            beyond += content
        directory += struct.pack(endian + "HHI", tag, kind, count) + place
    start = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", offset)
    return start + data.ljust(offset - 8, b"\0") + directory + struct.pack(endian + "I", 0) + beyond


def packed_12(array: NDArray[np.generic]) -> bytes:
    """Rows of 12-bit values, two in three bytes, each row filled up to a byte."""
    rows = []
    for row in array.astype(np.uint16):
        bits = ((row[:, None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8).ravel()
        rows.append(np.packbits(bits).tobytes())
    return b"".join(rows)


def png_with_chunk(image: Image.Image, name: bytes, content: bytes) -> bytes:
    """A PNG with a chunk more, right behind its header."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    data = buffer.getvalue()
    return data[:PNG_HEADER_END] + chunk + data[PNG_HEADER_END:]


def _long(endian: str, value: int) -> tuple[int, int, bytes]:
    return 4, 1, struct.pack(endian + "I", value)


def _shorts(endian: str, values: list[int]) -> tuple[int, int, bytes]:
    return 3, len(values), struct.pack(f"{endian}{len(values)}H", *values)
