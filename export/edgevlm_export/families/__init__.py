"""Model families, one per file, found by the config's `model_type`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgevlm_runtime.errors import UnsupportedModel

if TYPE_CHECKING:  # `edgevlm models` lists families without waiting for torch
    from edgevlm_export.families.base import Family

FAMILIES = ("llava", "smolvlm", "idefics3", "qwen2_5_vl", "gemma3", "paligemma")
"""`model_type`s with a file of that name here."""


def get_family(model_type: str) -> type[Family]:
    """The family of a `model_type`. Raises `UnsupportedModel`, naming those there are."""
    if model_type not in FAMILIES:
        raise UnsupportedModel(f"model type not supported: {model_type}: supported are {', '.join(FAMILIES)}")
    family: type[Family] = import_module(f"edgevlm_export.families.{model_type}").FAMILY
    return family
