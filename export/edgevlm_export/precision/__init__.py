"""Number formats: how the weights of linear layers are stored and multiplied, one record each, found by name.

A format lowers the neutral Linear operator to operators that compute in it, and says how their initializers are made
from the checkpoint's tensor. Formats see one tensor at a time, so memory stays bounded.
"""

from __future__ import annotations

from edgevlm_export.precision.base import Format, WeightJob
from edgevlm_runtime.bundle.certificate import Thresholds
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.registry import Registry

_FILES = {
    "ort": {
        "fp32": "float32:FORMAT",
        "fp16": "float16:FORMAT",
        "int8": "int8:FORMAT",
        "int8b": "blockwise:INT8B",
        "int4": "blockwise:INT4",
    },
    "standard": {
        "fp32": "standard.float:FP32",
        "fp16": "standard.float:FP16",
        "int8": "standard.eight_bits:INT8",
        "int8w": "standard.eight_bits:INT8W",
        "fp8": "standard.eight_bits:FP8",
        "int4": "standard.int4:FORMAT",
    },
}
FORMATS = {
    dialect: Registry("unknown precision", {name: f"{__name__}.{where}" for name, where in files.items()}, ExportError)
    for dialect, files in _FILES.items()
}
"""Dialect to its formats, by their names on the command line."""

__all__ = ["FORMATS", "Format", "WeightJob", "get_format", "thresholds_of"]


def get_format(name: str, dialect: str = "ort") -> Format:
    """The format with this name; block-wise ones take options behind a colon ("int4:block=128,symmetric").

    Raises `ExportError`, naming the formats there are, or the options.
    """
    base, colon, options = name.partition(":")
    found: Format = FORMATS[dialect].get(base)
    return found.configured(options) if colon else found


def thresholds_of(name: str) -> Thresholds:
    """What a bundle in this format must reach; options or not, of whichever dialect. Raises `ExportError`."""
    base = name.partition(":")[0]
    dialect = next((dialect for dialect, known in FORMATS.items() if base in known), "ort")
    return get_format(base, dialect).thresholds
