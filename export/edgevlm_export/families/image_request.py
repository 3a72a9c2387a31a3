"""What an export is asked to do otherwise with images than the checkpoint does."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

from edgevlm_export.families import known_family
from edgevlm_export.families.choosing import get_method
from edgevlm_runtime.bundle.manifest import FewerTokens
from edgevlm_runtime.errors import ExportError


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Another size, fewer tokens, or neither. Raises `ExportError` for values that mean nothing."""

    size: int | None = None
    """Side in pixels of the square pictures that the vision encoder shall take; None for the checkpoint's."""
    tokens: int | None = None
    """Image tokens of an image, or of each of its tiles, that the decoder shall read; None for all."""
    method: str | None = None
    """How they are chosen (`edgevlm_export.families.choosing.METHODS`); None for the family's first."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ExportError(f"image size not possible: {self.size} pixels: at least one patch is needed")
        if self.tokens is not None and self.tokens < 1:
            raise ExportError(f"number of image tokens not possible: {self.tokens}: at least 1 is needed")
        if self.method is not None:
            get_method(self.method)
            if self.tokens is None:
                raise ExportError("nothing to choose: --image-token-method says how, --image-tokens how many")

    def fewer(self, config: PreTrainedConfig, of: int) -> FewerTokens | None:
        """What is kept of the `of` tokens that the model with this config makes of every image (0: not always as many).

        Raises `ExportError` where that is nothing that its family can do."""
        if self.tokens is None:
            return None
        family = known_family(config.model_type)
        methods = () if family is None else family.choices(config)
        if not methods:
            raise ExportError(
                f"fewer image tokens not possible for {config.model_type}: where they stand on the picture decides "
                "their positions or what stands between them: leave out --image-tokens"
            )
        if not of:
            raise ExportError(
                f"fewer image tokens not possible for {config.model_type}: its images do not all have as many: leave "
                "out --image-tokens"
            )
        if self.tokens >= of:
            raise ExportError(f"number of image tokens not possible: {self.tokens} of {of}: ask for fewer than that")
        method = self.method or methods[0]
        if method not in methods:
            raise ExportError(
                f"choice of image tokens not possible: {method} for {config.model_type} with a "
                f"{config.vision_config.model_type}: take {', '.join(methods)}"
            )
        return FewerTokens(self.tokens, of, method)


AS_THEY_ARE = ImageRequest()
"""Nothing is to be done otherwise."""


def check_size(config: PreTrainedConfig, size: int) -> None:
    """Raise `ExportError` for a size that the model with this config cannot be given."""
    family = known_family(config.model_type)
    if family is None or not family.resizes(config):
        raise ExportError(
            f"image size not possible for {config.model_type}: its pictures come in tiles or in any size, or its "
            "tower has no table of positions to interpolate: leave out --image-size"
        )
    patch = int(config.vision_config.patch_size)
    if size % patch:
        below = size // patch * patch
        near = f"{below} or {below + patch}" if below else f"{patch}"
        raise ExportError(f"image size not possible: {size} pixels, patches have {patch}: take {near}")
