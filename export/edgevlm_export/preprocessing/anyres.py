"""The image processors of LLaVA-NeXT and LLaVA-OneVision as options of the kind `anyres`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.preprocessing.fixed_tokens import CLASS_TOKENS
from edgevlm_export.preprocessing.images import image_token, unsupported
from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.errors import CheckpointError
from edgevlm_runtime.images.kinds import anyres

ASPECT_RATIO = "anyres_max_"
"""How OneVision's `vision_aspect_ratio` begins; behind it stands a number of tiles."""


def _next(processor: CheckpointProcessor, config: PreTrainedConfig) -> anyres.Options:
    """LLaVA-NeXT. `LlavaNextProcessor` counts a tile's tokens by the patch size; older checkpoints leave the numbers to
    the model's config."""
    settings, vision = processor.settings, config.vision_config
    patch = settings.get("patch_size") or vision.patch_size
    made_extra = CLASS_TOKENS.get(vision.model_type, 0)
    extra = settings.get("num_additional_image_tokens", made_extra if "patch_size" not in settings else 0)
    return _options(processor, config, counted=(vision.image_size // patch) ** 2 + extra - _drops(settings, config))


def _onevision(processor: CheckpointProcessor, config: PreTrainedConfig) -> anyres.Options:
    """LLaVA-OneVision, whose processor is told a tile's tokens, and the most tiles by a word."""
    settings = processor.settings
    word = config.vision_aspect_ratio
    if settings.get("vision_aspect_ratio", f"{ASPECT_RATIO}9") != word:
        raise _apart(processor, f"vision_aspect_ratio is {settings.get('vision_aspect_ratio')}, in the model {word}")
    most = word.removeprefix(ASPECT_RATIO)
    if not (word.startswith(ASPECT_RATIO) and most.isdecimal()):
        raise unsupported(processor, f"vision_aspect_ratio {word}")
    stated = settings.get("num_image_tokens") or 0
    return _options(processor, config, counted=stated - _drops(settings, config), most_tiles=int(most))


LLAVA_NEXT = ("anyres", _next)
LLAVA_ONEVISION = ("anyres", _onevision)


def _options(
    processor: CheckpointProcessor, config: PreTrainedConfig, counted: int, most_tiles: int | None = None
) -> anyres.Options:
    """`counted`: tokens of a tile by the joint processor, which must be one for each patch.

    Raises `CheckpointError` where processor and model do not fit, `UnsupportedModel` for settings that the kind cannot
    have.
    """
    source, tile = processor.image_processor, _tile(processor, config)
    side = tile // config.vision_config.patch_size
    made = side**2 + CLASS_TOKENS.get(config.vision_config.model_type, 0) - _drops({}, config)
    if made != side**2:
        raise unsupported(processor, f"{made} features of the model for {side} x {side} patches of a tile")
    if counted != made:
        raise _apart(
            processor,
            f"the processor counts {counted} tokens for a tile, the model makes {made}: see patch_size, "
            "num_image_tokens, vision_feature_select_strategy and num_additional_image_tokens in processor_config.json",
        )
    sizes = tuple((int(height), int(width)) for height, width in source.image_grid_pinpoints)
    if sizes != tuple(tuple(size) for size in getattr(config, "image_grid_pinpoints", ())):
        raise _apart(processor, "image_grid_pinpoints of the image processor are not the model's")
    try:
        return anyres.Options(
            image_token=image_token(processor, "<image>"),
            tile=tile,
            side=side,
            sizes=sizes,
            resample=int(source.resample),
            most_tiles=most_tiles,
        )
    except ValueError as error:
        raise unsupported(processor, str(error)) from error


def _tile(processor: CheckpointProcessor, config: PreTrainedConfig) -> int:
    """A tile's side: what the tower takes, and all that resizing and cropping a tile would leave as it is."""
    source, tower = processor.image_processor, config.vision_config.image_size
    size, crop = source.size, source.crop_size
    whole = (size.height, size.width) if size.height and size.width else (size.shortest_edge, size.shortest_edge)
    cropped = (crop.height, crop.width) if crop and crop.height else whole
    if not isinstance(tower, int) or not whole == cropped == (tower, tower):
        raise _apart(
            processor,
            f"the image in {whole[1]} x {whole[0]} pixels and tiles of {cropped[1]} x {cropped[0]} for a vision tower "
            f"of {tower} pixels",
        )
    return tower


def _drops(settings: dict[str, Any], config: PreTrainedConfig) -> bool:
    """Whether the first feature of a tile is left out, by the joint processor's settings or the model."""
    strategy: str = settings.get("vision_feature_select_strategy") or config.vision_feature_select_strategy
    return strategy == "default"


def _apart(processor: CheckpointProcessor, what: str) -> CheckpointError:
    return CheckpointError(f"processor and model do not belong together: {processor.folder}: {what}")
