"""Image processors of transformers as the runtime's kinds of image processing.

One function per kind; `TRANSLATORS` has them by image-processor class, without the suffix that names the backend.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.families import known_family
from edgevlm_export.preprocessing.fixed_tokens import fixed_tokens
from edgevlm_export.preprocessing.loading import CheckpointProcessor
from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from edgevlm_runtime.images.kinds import fixed, naflex, native, pooled, tiles
from edgevlm_runtime.registry import Registry


def image_processing(processor: CheckpointProcessor, config: PreTrainedConfig) -> ImageProcessing:
    """The manifest's entry. Raises `UnsupportedModel` and `CheckpointError`, see `translate`."""
    name = processor_name(processor.image_processor)
    kind, translator = TRANSLATORS.get(name)
    family = known_family(config.model_type)
    if family is not None and family.images_of(config) not in {None, kind}:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: {name} for {config.model_type}: take "
            "preprocessor_config.json from the original checkpoint"
        )
    options = dataclasses.asdict(translator(processor, config))
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return ImageProcessing(kind, plain, exif_orientation=True)  # as `transformers.image_utils.load_image` does


def processor_name(image_processor: Any) -> str:
    """Class name without the suffix of the backend."""
    return str(type(image_processor).__name__).removesuffix("Pil").removesuffix("Fast")


def image_token(processor: CheckpointProcessor, default: str) -> str:
    """The text of the image token, by the rule of the joint processors of transformers."""
    return str(getattr(processor.tokenizer, "image_token", None) or processor.settings.get("image_token") or default)


def _fixed(processor: CheckpointProcessor, config: PreTrainedConfig) -> fixed.Options:
    """CLIP, SigLIP, LLaVA; PaliGemma, whose images are SigLIP's."""
    source = processor.image_processor
    pads = bool(getattr(source, "do_pad", False))
    if pads and not hasattr(source, "pad_to_square"):
        raise unsupported(processor, "do_pad")
    exact, shortest, longest = _resize(processor) if source.do_resize else (None, None, None)
    made = (source.crop_size.height, source.crop_size.width) if source.do_center_crop else exact
    if shortest is not None and not source.do_center_crop:
        raise unsupported(processor, "size without a centre crop, which leaves images of different sizes")
    side = getattr(config.vision_config, "image_size", None) or made  # timm's towers take any size
    if side is None:
        raise unsupported(processor, "do_resize and do_center_crop switched off, which leaves images of any size")
    tower = _side(side)
    height, width = made or tower
    if (height, width) != tower:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: images of {width} x {height} pixels "
            f"for a vision tower of {tower[1]} x {tower[0]}"
        )
    return fixed.Options(
        image_token=image_token(processor, "<image>"),
        tokens=fixed_tokens(processor, config, height, width),
        height=height,
        width=width,
        exact=exact,
        shortest_edge=shortest,
        longest_edge=longest,
        resample=int(source.resample),
        center_crop=bool(source.do_center_crop),
        pad_color=_pad_color(source.image_mean) if pads else None,
    )


def _gemma3(processor: CheckpointProcessor, config: PreTrainedConfig) -> fixed.Options:
    """Gemma 3: the tokens that begin and end an image, and empty lines, stand around its own."""
    if getattr(processor.image_processor, "do_pan_and_scan", False):
        raise unsupported(processor, "do_pan_and_scan")
    begin, soft, end = processor.tokenizer.convert_ids_to_tokens(
        [config.boi_token_id, config.image_token_id, config.eoi_token_id]
    )
    options = _fixed(processor, config)
    return dataclasses.replace(options, image_token=soft, before=f"\n\n{begin}", after=f"{end}\n\n")


def _tiles(processor: CheckpointProcessor, config: PreTrainedConfig) -> tiles.Options:
    """SmolVLM, Idefics3."""
    source, tokenizer = processor.image_processor, processor.tokenizer
    tile = int(dict(source.max_image_size)["longest_edge"])
    tokens = int(processor.settings.get("image_seq_len", 169))
    made = (tile // config.vision_config.patch_size) ** 2 // config.scale_factor**2
    if tokens != made:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: image_seq_len is {tokens} "
            f"in processor_config.json, the model makes {made} of a tile"
        )
    size = source.size
    if source.do_resize and not (size.longest_edge or (size.height and size.width)):
        raise unsupported(processor, f"size {dict(size)}")
    by_edge = bool(source.do_resize and size.longest_edge)
    return tiles.Options(
        image_token=image_token(processor, "<image>"),
        tokens_per_tile=tokens,
        tile=tile,
        longest_edge=size.longest_edge if by_edge else None,
        exact=(size.height, size.width) if source.do_resize and not by_edge else None,
        resample=int(source.resample),
        split=bool(source.do_image_splitting),
        fake_token=getattr(tokenizer, "fake_image_token", None) or tiles.FAKE_TOKEN,
        global_token=getattr(tokenizer, "global_image_token", None) or tiles.GLOBAL_TOKEN,
    )


def _native(processor: CheckpointProcessor, config: PreTrainedConfig) -> native.Options:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""
    source, vision = processor.image_processor, config.vision_config
    if (source.patch_size, source.merge_size) != (vision.patch_size, vision.spatial_merge_size):
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: patches of {source.patch_size} merged by "
            f"{source.merge_size}, in the model {vision.patch_size} by {vision.spatial_merge_size}"
        )
    if not (source.size.shortest_edge and source.size.longest_edge):
        raise unsupported(processor, f"size {dict(source.size)}")
    return native.Options(
        image_token=image_token(processor, "<|image_pad|>"),
        patch_size=source.patch_size,
        merge_size=source.merge_size,
        window_size=getattr(vision, "window_size", 0) or 0,
        min_pixels=source.size.shortest_edge,
        max_pixels=source.size.longest_edge,
        resize=bool(source.do_resize),
        resample=int(source.resample),
        position_grid=math.isqrt(getattr(vision, "num_position_embeddings", 0) or 0),
    )


def _paddleocr(processor: CheckpointProcessor, config: PreTrainedConfig) -> native.Options:
    """PaddleOCR-VL."""
    vision = config.vision_config
    grid = vision.image_size // vision.patch_size
    token = image_token(processor, "<|IMAGE_PLACEHOLDER|>")
    options = _native(processor, config)
    return dataclasses.replace(options, image_token=token, position_grid=grid, grid_corners=False, enlarge=True)


def _pixtral(processor: CheckpointProcessor, config: PreTrainedConfig) -> native.Options:
    """Pixtral; Mistral 3, whose patches are merged."""
    source, vision, settings = processor.image_processor, config.vision_config, processor.settings
    ours = settings.get("patch_size", 16), settings.get("spatial_merge_size", 1)  # what PixtralProcessor assumes
    models = vision.patch_size, getattr(config, "spatial_merge_size", 1)
    if ours != models:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: patches of {ours[0]} merged by "
            f"{ours[1]}, in the model {models[0]} by {models[1]}: see patch_size and spatial_merge_size in "
            "processor_config.json"
        )
    if getattr(source, "do_center_crop", False):
        raise unsupported(processor, "do_center_crop")
    edge = source.size.longest_edge
    height, width = (edge, edge) if edge else (source.size.height, source.size.width)
    if not (height and width):
        raise unsupported(processor, f"size {dict(source.size)}")
    try:
        return native.Options(
            image_token=str(settings.get("image_token", "[IMG]")),
            patch_size=models[0],
            merge_size=models[1],
            resize=bool(source.do_resize),
            resample=int(source.resample),
            within=(height, width),
            row_end=str(settings.get("image_break_token", "[IMG_BREAK]")),
            image_end=str(settings.get("image_end_token", "[IMG_END]")),
        )
    except ValueError as error:
        raise unsupported(processor, str(error)) from error


def _naflex(processor: CheckpointProcessor, config: PreTrainedConfig) -> naflex.Options:
    """LFM2-VL."""
    source, vision, tokenizer = processor.image_processor, config.vision_config, processor.tokenizer
    if (source.encoder_patch_size, source.downsample_factor) != (vision.patch_size, config.downsample_factor):
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: patches of {source.encoder_patch_size} "
            f"merged by {source.downsample_factor}, in the model {vision.patch_size} by {config.downsample_factor}"
        )
    side = int(vision.num_patches**0.5)
    if side**2 != vision.num_patches:
        raise CheckpointError(f"a table of {vision.num_patches} position embeddings is no square: {processor.folder}")
    split = bool(source.do_image_splitting) and not source.min_tiles == source.max_tiles == 1
    if split and not 1 < source.min_tiles <= source.max_tiles:
        raise unsupported(processor, f"from {source.min_tiles} to {source.max_tiles} tiles")
    if not source.do_pad or not processor.settings.get("use_image_special_tokens", True):
        raise unsupported(processor, "do_pad or use_image_special_tokens switched off")
    try:
        return naflex.Options(
            image_token=image_token(processor, "<image>"),
            grid_side=side,
            grids=tuple(source._target_ratios(source.min_tiles, source.max_tiles)) if split else (),
            patch_size=vision.patch_size,
            merge_size=source.downsample_factor,
            tile=source.tile_size,
            min_tokens=source.min_image_tokens,
            max_tokens=source.max_image_tokens,
            tolerance=float(source.max_pixels_tolerance),
            thumbnail=bool(source.use_thumbnail),
            resample=int(source.resample),
            start=getattr(tokenizer, "image_start_token", None) or naflex.START,
            end=getattr(tokenizer, "image_end_token", None) or naflex.END,
            thumbnail_token=getattr(tokenizer, "image_thumbnail_token", None) or naflex.THUMBNAIL,
        )
    except ValueError as error:
        raise unsupported(processor, str(error)) from error


def _pooled(processor: CheckpointProcessor, config: PreTrainedConfig) -> pooled.Options:
    """Gemma 4."""
    source, vision = processor.image_processor, config.vision_config
    if (source.patch_size, source.pooling_kernel_size) != (vision.patch_size, vision.pooling_kernel_size):
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: patches of {source.patch_size} pooled by "
            f"{source.pooling_kernel_size}, in the model {vision.patch_size} by {vision.pooling_kernel_size}"
        )
    if source.max_soft_tokens * source.pooling_kernel_size > vision.position_embedding_size:
        raise CheckpointError(
            f"processor and model do not belong together: {processor.folder}: images of up to {source.max_soft_tokens} "
            f"tokens in a row for a tower with {vision.position_embedding_size} positions"
        )
    if not source.do_resize:
        raise unsupported(processor, "do_resize switched off")
    start, token, end = processor.tokenizer.convert_ids_to_tokens(
        [config.boi_token_id, config.image_token_id, config.eoi_token_id]
    )
    return pooled.Options(
        image_token=token,
        start=start,
        end=end,
        patch_size=source.patch_size,
        pool_size=source.pooling_kernel_size,
        max_tokens=source.max_soft_tokens,
        resample=int(source.resample),
    )


_TRANSLATORS: dict[str, tuple[str, Callable[[CheckpointProcessor, PreTrainedConfig], Any]] | str] = {
    "CLIPImageProcessor": ("fixed", _fixed),
    "SiglipImageProcessor": ("fixed", _fixed),
    "LlavaImageProcessor": ("fixed", _fixed),
    "LlavaNextImageProcessor": "edgevlm_export.preprocessing.anyres:LLAVA_NEXT",
    "LlavaOnevisionImageProcessor": "edgevlm_export.preprocessing.anyres:LLAVA_ONEVISION",
    "Gemma3ImageProcessor": ("fixed", _gemma3),
    "SmolVLMImageProcessor": ("tiles", _tiles),
    "Idefics3ImageProcessor": ("tiles", _tiles),
    "GotOcr2ImageProcessor": "edgevlm_export.preprocessing.dynamic_tiles:TRANSLATOR",
    "Qwen2VLImageProcessor": ("native", _native),
    "PaddleOCRVLImageProcessor": ("native", _paddleocr),
    "Lfm2VlImageProcessor": ("naflex", _naflex),
    "PixtralImageProcessor": ("native", _pixtral),
    "Gemma4ImageProcessor": ("pooled", _pooled),
}
TRANSLATORS = Registry(
    "image processor not supported", _TRANSLATORS, UnsupportedModel, group="edgevlm.image_processors"
)
"""Image-processor class to the runtime's kind and the function that makes its options."""


def _resize(processor: CheckpointProcessor) -> tuple[tuple[int, int] | None, int | None, int | None]:
    """(exact height and width, shortest edge, longest edge), by the precedence of `PilBackend.resize`."""
    size = processor.image_processor.size
    if size.shortest_edge:
        return None, size.shortest_edge, size.longest_edge
    if size.height and size.width and not (size.max_height and size.max_width):
        return (size.height, size.width), None, None
    raise unsupported(processor, f"size {dict(size)}")


def _pad_color(mean: Any) -> tuple[int, int, int]:
    """The background of LLaVA's padding: the mean colour, rounded down, as the processor has it."""
    red, green, blue = (int(value * 255) for value in (mean or (0.0, 0.0, 0.0)))
    return red, green, blue


def _side(size: Any) -> tuple[int, int]:
    """(height, width) of a vision tower's `image_size`."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def unsupported(processor: CheckpointProcessor, what: str) -> UnsupportedModel:
    """The refusal of a setting that no kind has."""
    name = processor_name(processor.image_processor)
    return UnsupportedModel(f"setting of {name} not supported: {what}: {processor.folder}")
