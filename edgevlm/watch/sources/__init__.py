"""Where pictures come from. One file per kind, each with `Options` (its table in a plan) and `open_source(options)`."""

from __future__ import annotations

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.registry import Registry

SOURCES = Registry(
    "unknown source",
    {
        name: f"edgevlm.watch.sources.{name}"
        for name in ("rtsp", "http", "v4l2", "video", "snapshot", "folder", "pictures")
    },
    EdgeVLMError,
    group="edgevlm.sources",
)
"""Kinds, each the module with `Options` and `open_source`."""
