"""Bundle and reference see the same picture, and it is the one that transformers opens."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image as transformers_load_image

import edgevlm_runtime
from edgevlm_export.reference import Reference
from edgevlm_export.streaming import material
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.images import load_image
from tests.support.pictures import tiff

MODES = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "L", "P", "1"), "TIFF": ("RGB", "L", "1"), "WEBP": ("RGB",)}


def noise(width: int = 41, height: int = 23) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def photo(image: Image.Image, format_: str, orientation: int) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, format_, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format_", "mode"), [(format_, mode) for format_ in MODES for mode in MODES[format_]])
def test_files_are_opened_as_transformers_opens_them(format_: str, mode: str, orientation: int, tmp_path: Path) -> None:
    """From memory: of a path Pillow 13 maps uncompressed TIFF files, and turned ones then come out scrambled."""
    file, data = tmp_path / "photo", photo(noise().convert(mode), format_, orientation)
    file.write_bytes(data)
    theirs = transformers_load_image(base64.b64encode(data).decode())
    np.testing.assert_array_equal(np.asarray(load_image(file)), np.asarray(theirs))


FILES: dict[str, Callable[[], bytes]] = {
    "turned": lambda: photo(noise(), "JPEG", 6),
    "mirrored": lambda: photo(noise().convert("L"), "TIFF", 5),
    "12 bits": lambda: tiff(np.asarray(noise().convert("L")).astype(np.uint16) * 16, tags={281: 4095}),
    "float": lambda: tiff((np.asarray(noise().convert("L")) / 255).astype(np.float32)),
    "transparent": lambda: photo(Image.merge("RGBA", [*noise().split(), noise().convert("L")]), "PNG", 8),
}


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Reference:
    return Reference.load(str(tiny_checkpoint))


@pytest.mark.parametrize("name", FILES)
def test_the_reference_sees_what_the_bundle_sees(
    name: str, tiny_bundle: Path, reference: Reference, tmp_path: Path
) -> None:
    file = tmp_path / "picture"
    file.write_bytes(FILES[name]())
    pipeline = edgevlm_runtime.load(tiny_bundle, threads=1).pipeline
    assert pipeline.manifest.image.exif_orientation
    ours = pipeline.encoder.compute(pipeline.prepare(file)).embeddings
    np.testing.assert_allclose(ours, reference.image_embeddings(file), rtol=0, atol=2e-4)
    lying = edgevlm_runtime.load(tiny_bundle, threads=1, apply_exif_orientation=False).pipeline
    assert (np.abs(lying.encoder.compute(lying.prepare(file)).embeddings - ours).max() > 1e-2) == (
        name in ("turned", "mirrored", "transparent")
    )


def test_a_calibration_picture_that_the_runtime_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(np.full((4, 4), 300, np.float32)))
    with pytest.raises(ExportError, match=r"unreadable calibration image: .*a\.tif: .*nothing says which is white"):
        material.read_folder(tmp_path)
