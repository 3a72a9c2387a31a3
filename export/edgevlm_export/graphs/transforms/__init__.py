"""Transforms that leave a graph's function as it is and make its weights and activations easier to quantize.

A transform works on the neutral graph, before a dialect lowers it: it changes nodes, and says how weights change when
they are read. Weights are still streamed one at a time. One transform per file, found by name.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

import onnx_ir as ir

from edgevlm_export.graphs.transforms.edits import Edits
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.registry import Registry

_NAMES = ("rotate-residual", "rotate-values", "rotate-product")
TRANSFORMS = Registry(
    "unknown transform", {name: f"{__name__}.{name.replace('-', '_')}:transform" for name in _NAMES}, ExportError
)
"""By their names in a precision plan."""


class Transform(Protocol):
    """What a file in this folder offers as `transform`."""

    def __call__(self, model: ir.Model, kept: AbstractSet[str], edits: Edits) -> None:
        """Change `model` in place and add to `edits`; weights named in `kept` must stay as they are.

        Raises `NotApplicable` where the transform does not fit this graph; then nothing is changed.
        """
        ...


def get_transform(name: str) -> Transform:
    """The transform called `name`. Raises `ExportError`, naming those there are."""
    found: Transform = TRANSFORMS.get(name)
    return found
