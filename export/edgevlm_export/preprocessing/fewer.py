"""Images with fewer tokens than the checkpoint makes of them, and with another size, as the manifest describes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.families.image_request import ImageRequest, check_size
from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.bundle.manifest import ImageProcessing

TOKENS = {"fixed": "tokens", "tiles": "tokens_per_tile", "dynamic": "tokens_per_tile"}
"""Kinds whose images, or tiles, all have as many tokens, and the option that says how many."""


def at_size(
    processor: CheckpointProcessor, config: PreTrainedConfig, request: ImageRequest | ImageProcessing | None
) -> tuple[CheckpointProcessor, PreTrainedConfig]:
    """Processor and config as of a checkpoint whose pictures have the size asked for, or a bundle's; as they are where
    none is.

    Raises `ExportError` for a size that the model cannot be given.
    """
    size = None if request is None else request.size
    if size is None:
        return processor, config
    check_size(config, size)
    made, before = copy.deepcopy(processor.image_processor), int(config.vision_config.image_size)
    made.size = _scaled(made.size, size / before)
    if getattr(made, "crop_size", None):
        made.crop_size = _scaled(made.crop_size, size / before)
    return replace(processor, image_processor=made), config_at_size(config, size)


def config_at_size(config: PreTrainedConfig, size: int | None) -> PreTrainedConfig:
    """A config as of a checkpoint whose pictures have `size` pixels; as it is for None."""
    if size is None:
        return config
    made = copy.deepcopy(config)
    made.vision_config.image_size = size
    return made


def changed(image: ImageProcessing, config: PreTrainedConfig, request: ImageRequest) -> ImageProcessing:
    """The manifest's entry `image`, with what was asked for. Raises `ExportError` where that is not possible."""
    if request.tokens is None:
        return replace(image, size=request.size)
    name = TOKENS.get(image.kind, "")
    fewer = request.fewer(config, int(image.options.get(name, 0)))
    assert fewer is not None
    return replace(image, size=request.size, fewer=fewer, options={**image.options, name: fewer.kept})


def _scaled(size: Any, factor: float) -> Any:
    """A size of transformers, every edge of it times `factor`."""
    edges: Mapping[str, int | None] = dict(size)
    return type(size)(**{name: edge and round(edge * factor) for name, edge in edges.items()})
