"""A damaged TIFF is an `ImageError` and nothing else: libtiff, a native library, prints nothing beside it."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.load import load_image

COMPRESSIONS = ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4", "zstd")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # the command line does not show them
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_files_are_one_error(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    picture = Image.radial_gradient("L").resize((60, 44)).convert("1" if compression == "group4" else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression=compression)
    whole, draw, refused = buffer.getvalue(), random.Random(3), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[draw.randrange(8, len(damaged))] = draw.randrange(256)
        try:
            load_image(bytes(damaged))
        except ImageError:
            refused += 1
    assert refused
    assert capfd.readouterr() == ("", "")
