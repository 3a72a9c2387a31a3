"""How weights are held: one holder a file, found by name.

A holder lowers the neutral Linear operator to operators that compute with its number format, and says how to make
their initializers from the checkpoint's tensor. Holders see one tensor at a time, so memory stays bounded.
"""

from __future__ import annotations

from importlib import import_module

from edgevlm_export.precision.base import Holder, WeightJob
from edgevlm_export.precision.blocks import Blockwise
from edgevlm_runtime.errors import ExportError

HOLDERS = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int8b": "int8b", "int4": "int4"}
"""Name on the command line to file in this folder."""
STANDARD_HOLDERS = {"fp32": "float", "fp16": "float", "int8": "int8", "int8w": "int8w", "fp8": "fp8", "int4": "int4"}
"""Likewise, in the folder `standard`: operators of ONNX itself, with explicit quantization."""
FOLDERS = {
    "ort": ("edgevlm_export.precision", HOLDERS),
    "standard": ("edgevlm_export.precision.standard", STANDARD_HOLDERS),
}
"""Dialect to the folder of its holders and their names."""

__all__ = ["FOLDERS", "HOLDERS", "Holder", "WeightJob", "get_holder"]


def get_holder(name: str, dialect: str = "ort") -> Holder:
    """The holder called `name`; block-wise ones take options behind a colon ("int4:block=128,symmetric").

    Raises `ExportError`, naming the holders there are, or the options.
    """
    base, colon, options = name.partition(":")
    folder, files = FOLDERS[dialect]
    if base not in files:
        raise ExportError(f"unknown precision: {name}: known are {', '.join(files)}")
    holder: Holder = import_module(f"{folder}.{files[base]}").HOLDER
    if not colon:
        return holder
    if not isinstance(holder, Blockwise):
        raise ExportError(f"precision {base} takes no options: {name}: block-wise ones do, as int4:block=128,symmetric")
    return holder.configured(options)
