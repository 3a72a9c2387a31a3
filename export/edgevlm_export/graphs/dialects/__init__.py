"""Dialects lower the neutral operators of `edgevlm_export.graphs.ops` to an engine's own. One per file."""

from __future__ import annotations

from typing import Protocol, cast

import onnx_ir as ir

from edgevlm_export.graphs.source import GraphSource
from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.registry import Registry

DIALECTS = Registry("unknown dialect", {name: f"{__name__}.{name}" for name in ("ort", "standard")}, ExportError)


class Dialect(Protocol):
    """What a dialect's module offers."""

    def lower(self, model: ir.Model, source: GraphSource) -> StepInputs:
        """Replace every neutral operator but Linear, in place. Linear is lowered by the precision stage.

        Returns what the decoder's inputs about its cache are afterwards.
        """
        ...

    def fuse(self, model: ir.Model) -> None:
        """Join operators where the engine has one for several, in place, once every layer is lowered."""
        ...


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`. Raises `ExportError`, naming those there are."""
    return cast(Dialect, DIALECTS.get(name))
