"""Who gets verdicts. One file per kind, each with `Options` (its table in a plan) and `make_sink(options, about)`."""

from __future__ import annotations

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.registry import Registry

SINKS = Registry(
    "unknown sink",
    {name: f"edgevlm.watch.sinks.{name}" for name in ("terminal", "mqtt", "webhook", "modbus", "opcua", "pictures")},
    EdgeVLMError,
    group="edgevlm.sinks",
)
"""Kinds, each the module with `Options` and `make_sink`."""
