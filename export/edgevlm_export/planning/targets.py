"""What a bundle's graphs are made for, found by name."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm_export.families.text_config import DEFAULT_MAX_CONTEXT
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.registry import Registry


@dataclass(frozen=True, slots=True)
class Target:
    """One target."""

    dialect: str
    """Key of `edgevlm_export.graphs.dialects`."""
    context: int
    """Tokens the decoder holds where nobody asks for another number."""
    profiles: bool = False
    """Whether engines are built ahead of time, for ranges of sizes that the manifest names."""


STATIC_CONTEXT = 4096
"""A cache of fixed length is read whole at every step: four times what a large image and its questions need."""

TARGETS = Registry(
    "unknown target",
    {
        "onnx": Target("ort", DEFAULT_MAX_CONTEXT),
        "tensorrt": Target("standard", STATIC_CONTEXT, profiles=True),
        "tensorrt-rtx": Target("standard", STATIC_CONTEXT, profiles=True),
    },
    ExportError,
)
"""Name on the command line to target."""


def get_target(name: str) -> Target:
    """The target called `name`. Raises `ExportError`, naming those there are."""
    found: Target = TARGETS.get(name)
    return found
