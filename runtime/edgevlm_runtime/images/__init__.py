"""Images on their way into the model: decoding and preprocessing.

    image = load_image("part.png")             # path, bytes, PIL image or uint8 [height, width, 3] array; gives RGB
    process = make_processor(manifest.image)   # once for each bundle
    prepared = process(image)                  # PreparedImage: feeds, tokens, placeholder, order, weights, grid

Embeddings are cached by what `PreparedImage` holds, see `ImageEncoder.key` in `edgevlm_runtime.vision.encoder`.

A kind of processing is a file in `kinds/` that holds a frozen dataclass `Options` and a class `Processor` made
from it; the manifest names the file. Every kind reproduces the Pillow image processors of transformers bit by bit
(`naflex` has none there, see its own words) and stops before rescale and normalisation, which are in the vision graph.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec

from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.images.base import ImageProcessor, PreparedImage
from edgevlm_runtime.images.load import ImageSource, LoadOptions, load_image, open_image
from edgevlm_runtime.images.rgb import to_rgb
from edgevlm_runtime.reading import known as known_to_msgspec
from edgevlm_runtime.registry import Registry

__all__ = [
    "KINDS",
    "ImageProcessor",
    "ImageSource",
    "LoadOptions",
    "PreparedImage",
    "load_image",
    "make_processor",
    "open_image",
    "to_rgb",
]


BUILT_IN = ("fixed", "tiles", "dynamic", "anyres", "native", "naflex", "pooled")
"""Kinds with a file of that name in `kinds/`."""
KINDS = Registry(
    "unknown kind of image processing in the bundle",
    {name: f"{__name__}.kinds.{name}" for name in BUILT_IN},
    BundleError,
    group="edgevlm.image_kinds",
    advice="upgrade edgevlm-runtime, or install the package that has it",
)
"""A kind is a module with `Options` and `Processor`."""


def make_processor(processing: ImageProcessing) -> ImageProcessor:
    """The image processor that the manifest describes.

    Raises `BundleError` when the kind is unknown, or an option is missing, unknown or of the wrong type. Unknown
    options are refused, not ignored: an option this runtime does not know would change pixels without a word.
    """
    module = KINDS.get(processing.kind)
    known = {option.name for option in fields(module.Options)}
    unknown = ", ".join(repr(name) for name in sorted(set(processing.options) - known))
    if unknown:
        raise BundleError(
            f"image processing '{processing.kind}' has options this runtime does not know: {unknown}: "
            "upgrade edgevlm-runtime"
        )
    try:
        options: Any = msgspec.convert(processing.options, known_to_msgspec(module.Options))
    except msgspec.ValidationError as error:
        raise BundleError(
            f"image processing '{processing.kind}' has bad options: {error}: export the model again"
        ) from error
    processor: ImageProcessor = module.Processor(options)
    return processor
