"""InternVL's image processor (GOT-OCR 2's, cut as its joint processor says) as options of the kind `dynamic`."""

from __future__ import annotations

from transformers import PreTrainedConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_all_supported_aspect_ratios
from transformers.models.internvl.processing_internvl import InternVLProcessor

from edgevlm_export.preprocessing.images import unsupported
from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.errors import CheckpointError
from edgevlm_runtime.images.kinds import dynamic
from edgevlm_runtime.images.kinds.dynamic import Grid


def options(processor: CheckpointProcessor, config: PreTrainedConfig) -> dynamic.Options:
    """Raises `CheckpointError` where processor, tokenizer and model do not fit, `UnsupportedModel` for settings that
    the kind cannot have."""
    source, tokenizer = processor.image_processor, processor.tokenizer
    side = _check_tile(processor, config)
    try:
        return dynamic.Options(
            image_token=tokenizer.context_image_token,
            tokens_per_tile=_tokens(processor, config, side),
            tile=side,
            grids=_grids(processor),
            resample=int(source.resample),
            start=tokenizer.start_image_token,
            end=tokenizer.end_image_token,
        )
    except AttributeError as error:  # InternVLProcessor asks the tokenizer for these names as well
        raise CheckpointError(
            f"the tokenizer does not name the tokens of an image: {processor.folder}: {error}: take "
            "tokenizer_config.json from the original checkpoint"
        ) from error
    except ValueError as error:
        raise unsupported(processor, str(error)) from error


def _check_tile(processor: CheckpointProcessor, config: PreTrainedConfig) -> int:
    """A tile's side. The model reshapes its patches to a square, and its positions are those of one size."""
    size, tower = processor.image_processor.size, tuple(config.vision_config.image_size)
    if (size.height, size.width) != tower or tower[0] != tower[1]:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: tiles of {size.width} x {size.height} "
            f"pixels for a vision tower of {tower[1]} x {tower[0]}, where both must be one square"
        )
    return int(size.height)


def _tokens(processor: CheckpointProcessor, config: PreTrainedConfig, side: int) -> int:
    """Image tokens for each tile."""
    stated = processor.settings.get("image_seq_length", 256)
    made = int(side // config.vision_config.patch_size[0] * config.downsample_ratio) ** 2
    if stated != made:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: image_seq_length is {stated} in "
            f"processor_config.json, the model makes {made} of a tile"
        )
    return made


def _grids(processor: CheckpointProcessor) -> tuple[Grid, ...]:
    """What images are cut into. The joint processor says whether they are: the image processor's own setting, which
    published checkpoints have switched off, is not asked. Raises `ValueError` where images keep their sizes, or come to
    too many tiles."""
    source = processor.image_processor
    if source.max_patches > dynamic.MOST_TILES:
        raise ValueError(f"max_patches {source.max_patches}, where {dynamic.MOST_TILES} are possible")
    if InternVLProcessor.images_kwargs.get("crop_to_patches", source.crop_to_patches) and source.max_patches > 1:
        return tuple(get_all_supported_aspect_ratios(source.min_patches, source.max_patches)) or ((1, 1),)
    if not source.do_resize:
        raise ValueError("do_resize switched off")
    return ((1, 1),)


TRANSLATOR = ("dynamic", options)
