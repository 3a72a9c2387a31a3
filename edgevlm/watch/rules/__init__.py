"""What an answer means. One file per kind of question, each with `Options` (its table) and `make_rule(options)`."""

from __future__ import annotations

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.registry import Registry

RULES = Registry(
    "unknown kind of question",
    {name: f"edgevlm.watch.rules.{name}" for name in ("choice", "text", "schema")},
    EdgeVLMError,
    group="edgevlm.rules",
)
"""Kinds, each the module with `Options` and `make_rule`."""
