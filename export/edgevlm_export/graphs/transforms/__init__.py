"""Transforms that leave a graph's function as it is and make its weights and activations easier to quantize.

A transform works on the neutral graph, before a dialect lowers it: it changes nodes, and says how weights change when
they are read. Weights are still streamed one at a time. One transform a file, found by name.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from importlib import import_module
from typing import Protocol

import onnx_ir as ir

from edgevlm_export.graphs.transforms.edits import Edits
from edgevlm_runtime.errors import ExportError

TRANSFORMS = {
    "rotate-residual": "rotate_residual",
    "rotate-values": "rotate_values",
    "rotate-product": "rotate_product",
}
"""Name in a precision plan to file in this folder."""


class Transform(Protocol):
    """What a file in this folder offers as `transform`."""

    def __call__(self, model: ir.Model, kept: AbstractSet[str], edits: Edits) -> None:
        """Change `model` in place and add to `edits`; weights named in `kept` must stay as they are.

        Raises `NotApplicable` where the transform does not fit this graph; then nothing is changed.
        """
        ...


def get_transform(name: str) -> Transform:
    """The transform called `name`. Raises `ExportError`, naming those there are."""
    if name not in TRANSFORMS:
        raise ExportError(f"unknown transform: {name}: known are {', '.join(TRANSFORMS)}")
    found: Transform = import_module(f"edgevlm_export.graphs.transforms.{TRANSFORMS[name]}").transform
    return found
