"""How many tokens an image of fixed size has, as the checkpoint's processor counts them, checked against the model.

One function for each way to count; `COUNTS` has them by model type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.errors import CheckpointError

CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Outputs of a vision tower that belong to no patch."""


def fixed_tokens(processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int) -> int:
    """Image tokens of an image of that size. Raises `CheckpointError` where processor and model disagree."""
    return COUNTS.get(config.model_type, _patch_tokens)(processor, config, height, width)


def _patch_tokens(processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int) -> int:
    """Image tokens for each image as `LlavaProcessor` counts them, checked against what the model makes.

    Older checkpoints leave the numbers to the model's config.
    """
    settings, vision = processor.settings, config.vision_config
    selection = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA has no other
    patch = settings.get("patch_size") or vision.patch_size
    default = (settings.get("vision_feature_select_strategy") or selection) == "default"
    made_extra = CLASS_TOKENS.get(vision.model_type, 0)
    extra = settings.get("num_additional_image_tokens", made_extra if "patch_size" not in settings else 0)
    tokens = (height // patch) * (width // patch) + extra - default
    made = (height // vision.patch_size) * (width // vision.patch_size) + made_extra
    made -= selection == "default"
    if vision.model_type in CLASS_TOKENS and tokens != made:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: the processor counts {tokens} tokens "
            f"for an image, the model makes {made}: see patch_size, vision_feature_select_strategy and "
            "num_additional_image_tokens in processor_config.json"
        )
    return int(tokens)


def _stated_tokens(
    processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int, stated: Any, made: int
) -> int:
    """Image tokens for each image where the processor states a number. Raises `CheckpointError` for another than the
    model makes of one."""
    if stated != made:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: image_seq_length is {stated}, the model "
            f"makes {made} tokens of an image of {width} x {height} pixels"
        )
    return made


def _pooled_tokens(processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int) -> int:
    """Gemma 3: `Gemma3Processor` counts 256 where its settings say nothing."""
    made = int(config.mm_tokens_per_image**0.5) ** 2
    return _stated_tokens(processor, config, height, width, processor.settings.get("image_seq_length", 256), made)


def _all_patches(processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int) -> int:
    """PaliGemma: the image processor's settings have the number."""
    side = config.vision_config.patch_size
    made = (height // side) * (width // side)
    stated = getattr(processor.image_processor, "image_seq_length", None)
    return _stated_tokens(processor, config, height, width, stated, made)


def _stated_patches(processor: CheckpointProcessor, config: PreTrainedConfig, height: int, width: int) -> int:
    """FastVLM: the processor's settings have the side of a patch, the family knows what the model makes."""
    settings = processor.settings
    side, strategy = settings.get("patch_size"), settings.get("vision_feature_select_strategy") or "full"
    if not side or strategy != config.vision_feature_select_strategy:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: patch_size is {side}, "
            f"vision_feature_select_strategy {strategy} in processor_config.json"
        )
    return int((height // side) * (width // side) + settings.get("num_additional_image_tokens", 0))


COUNTS: dict[str, Callable[[CheckpointProcessor, PreTrainedConfig, int, int], int]] = {
    "gemma3": _pooled_tokens,
    "paligemma": _all_patches,
    "fast_vlm": _stated_patches,
}
"""Model type to how many tokens an image of fixed size (height, width) has, where not counted as LLaVA's."""
