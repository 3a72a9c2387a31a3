"""Model families, one per file, found by the config's `model_type`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgevlm_runtime.errors import UnsupportedModel
from edgevlm_runtime.registry import Registry

if TYPE_CHECKING:  # `edgevlm models` lists families without waiting for torch
    from edgevlm_export.families.base import Family

LINES = {
    "llavas": ("llava", "vipllava", "llava_next", "llava_onevision", "fast_vlm", "mistral3"),
    "shuffled": ("smolvlm", "idefics3", "internvl", "lfm2_vl"),
    "qwens": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "paddleocr_vl"),
    "gemmas": ("gemma3", "gemma4", "paligemma"),
}
"""Folders here, and the `model_type`s with a file of that name in them."""
FAMILIES = Registry(
    "model type not supported",
    {name: f"{__name__}.{line}.{name}:FAMILY" for line, names in LINES.items() for name in names},
    UnsupportedModel,
    group="edgevlm.families",
)


def get_family(model_type: str) -> type[Family]:
    """The family of a `model_type`. Raises `UnsupportedModel`, naming those there are."""
    family: type[Family] = FAMILIES.get(model_type)
    return family


def known_family(model_type: str) -> type[Family] | None:
    """Likewise; None where there is none, for those who read a checkpoint of whatever sort."""
    return get_family(model_type) if model_type in FAMILIES else None
