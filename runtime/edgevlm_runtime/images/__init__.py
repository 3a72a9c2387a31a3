"""Images on their way into the model: decoding and preprocessing.

    image = load_image("part.png")             # path, bytes, PIL image or uint8 [height, width, 3] array; gives RGB
    process = make_processor(manifest.image)   # once for each bundle
    prepared = process(image)                  # PreparedImage: feeds, tokens, placeholder, order, grid

Embeddings are cached by what `PreparedImage` holds, see `ImageEncoder.key` in `edgevlm_runtime.vision.encoder`.

A kind of processing is a file in this package that holds a frozen dataclass `Options` and a class `Processor` made
from it; the manifest names the file. Every kind reproduces the transformers PIL image processors bit by bit and
stops before rescale and normalisation, which the vision graph holds.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from types import ModuleType
from typing import Any

import msgspec

from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.images.base import ImageProcessor, PreparedImage
from edgevlm_runtime.images.load import ImageSource, LoadOptions, load_image, open_image
from edgevlm_runtime.images.rgb import to_rgb

__all__ = [
    "ImageProcessor",
    "ImageSource",
    "LoadOptions",
    "PreparedImage",
    "load_image",
    "make_processor",
    "open_image",
    "to_rgb",
]


def make_processor(processing: ImageProcessing) -> ImageProcessor:
    """The image processor that the manifest describes.

    Raises `BundleError` when the kind is unknown, or an option is missing, unknown or of the wrong type. Unknown
    options are refused, not ignored: an option this runtime does not know would change pixels without a word.
    """
    module = _module(processing.kind)
    known = {option.name for option in fields(module.Options)}
    unknown = sorted(set(processing.options) - known)
    if unknown:
        raise BundleError(
            f"image processing '{processing.kind}' has options this runtime does not know: {', '.join(unknown)}: "
            "upgrade edgevlm-runtime"
        )
    try:
        options: Any = msgspec.convert(processing.options, module.Options)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"image processing '{processing.kind}' has bad options: {error}: export the model again"
        ) from error
    processor: ImageProcessor = module.Processor(options)
    return processor


def _module(kind: str) -> ModuleType:
    """The file of this package that implements `kind`."""
    name = f"{__name__}.{kind}"
    try:
        module = importlib.import_module(name) if kind.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        module = None
    if module is None or not hasattr(module, "Processor"):
        raise BundleError(f"unknown kind of image processing in the bundle: '{kind}': upgrade edgevlm-runtime")
    return module
