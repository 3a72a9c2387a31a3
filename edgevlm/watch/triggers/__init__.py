"""Which frames are judged. One file per kind, each with `Options` (its table in a plan) and `make_trigger(options)`."""

from __future__ import annotations

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.registry import Registry

TRIGGERS = Registry(
    "unknown trigger",
    {
        name: f"edgevlm.watch.triggers.{name}"
        for name in ("interval", "every", "change", "mqtt", "http", "modbus", "file")
    },
    EdgeVLMError,
    group="edgevlm.triggers",
)
"""Kinds, each the module with `Options` and `make_trigger`."""
