"""LLaVA (Liu et al. 2023): a CLIP, SigLIP or Pixtral tower, a two-layer projector, any text decoder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.llavas import pixtral
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, over_pixels
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel

PUBLISHED = {
    "lmsys/vicuna-7b-v1.5": "llava-1.5",
    "lmsys/vicuna-13b-v1.5": "llava-1.5",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llava-llama3",
}
"""Language model, as the text config names it, to the chat template it was made a LLaVA with."""


class Llava(Family):
    """`LlavaForConditionalGeneration`."""

    model_type = "llava"
    projector_module = "model.multi_modal_projector"
    after_image: ClassVar[str | None] = "\n"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return PUBLISHED.get(str(getattr(config.get_text_config(), "_name_or_path", "")))

    @classmethod
    def images_of(cls, config: PreTrainedConfig) -> str | None:
        tower = TOWERS.get(config.vision_config.model_type)
        return cls.image_kind or (tower.image_kind if tower else None)

    @property
    def towers(self) -> Collection[str]:
        """Vision towers of this family, by `model_type`: all, or those whose images have one size."""
        kind = self.image_kind
        return [name for name, tower in TOWERS.items() if kind is None or tower.image_kind == "fixed"]

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states of the tower that make the features; 0 is the embeddings, negative ones count from the end."""
        layers = self.config.vision_feature_layer
        return (layers,) if isinstance(layers, int) else tuple(layers)

    @property
    def drops_class_token(self) -> bool:
        """Whether the projector gets the tower's features without the first of an image."""
        return bool(self.config.vision_feature_select_strategy == "default")

    @property
    def feature_width(self) -> int:
        """Channels of the vision features: those of every selected layer, side by side."""
        return int(self.config.vision_config.hidden_size) * len(self.layers)

    def check_layers(self) -> None:
        """Raise `CheckpointError` for `layers` that the tower does not have."""
        depth = int(self.config.vision_config.num_hidden_layers)
        if not self.layers or any(not -depth - 1 <= layer <= depth for layer in self.layers):
            raise CheckpointError(f"vision_feature_layer {list(self.layers)} is not in a tower of {depth} layers")

    def vision_encoder(self) -> GraphSource:
        check_tower(self.config.vision_config, self.towers)
        self.check_layers()
        return TOWERS[self.config.vision_config.model_type].encoder(self)

    def projector(self) -> GraphSource:
        return TOWERS[self.config.vision_config.model_type].projector(self)

    @property
    def projector_part(self) -> nn.Module:
        """What the projector's graph computes, from features to embeddings."""
        return Projector(self.model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what the tower takes."""
        return int(self.image_options["height"]), int(self.image_options["width"])

    @property
    def patches(self) -> int:
        """Vision features of one image, the class token included."""
        side = int(self.config.vision_config.patch_size)
        height, width = self.image_size
        return (height // side) * (width // side) + 1


def check_tower(config: PreTrainedConfig, supported: Collection[str]) -> None:
    """Raise `UnsupportedModel` for a vision tower whose `model_type` is not among those `supported`."""
    if config.model_type not in supported:
        raise UnsupportedModel(
            f"vision tower not supported: {config.model_type}: supported are {', '.join(sorted(supported))}"
        )


class VisionEncoder(nn.Module):
    """pixels uint8 [N, H, W, 3] to the selected hidden states, float32 [N, patches, width]."""

    def __init__(
        self,
        model: PreTrainedModel,
        normalization: Normalization,
        layers: tuple[int, ...],
        drops_class_token: bool,
    ):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)
        self.layers = layers
        self.drops_class_token = drops_class_token

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.model.model.vision_tower(
            self.normalize(pixels.permute(0, 3, 1, 2)), output_hidden_states=True
        ).hidden_states
        selected = [hidden[layer] for layer in self.layers]
        if self.drops_class_token:
            selected = [states[:, 1:] for states in selected]
        return torch.cat(selected, dim=-1) if len(selected) > 1 else selected[0]


class Projector(nn.Module):
    """The multi-modal projector alone."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings: Tensor = self.model.model.multi_modal_projector(image_features)
        return embeddings


@dataclass(frozen=True, slots=True)
class Tower:
    """What a vision tower's kind makes of the two graphs before the decoder, and the images it is made for."""

    image_kind: str
    encoder: Callable[[Llava], GraphSource]
    projector: Callable[[Llava], GraphSource]


def _encode_fixed(family: Llava) -> GraphSource:
    tower = VisionEncoder(family.model, family.normalization, family.layers, family.drops_class_token)
    return over_pixels(tower, *family.image_size)


def project_fixed(family: Llava) -> GraphSource:
    """The projector behind a tower whose images have one size."""
    return GraphSource(
        module=family.projector_part,
        inputs=(Port("image_features", torch.float32, ("images", "patches", family.feature_width)),),
        outputs=("image_embeddings",),
        sizes={"images": 2, "patches": 5},
        ranges={"patches": (1, family.patches, family.patches)},
    )


def _encode_native(family: Llava) -> GraphSource:
    if family.config.vision_feature_select_strategy != "full":
        raise CheckpointError(
            f"vision_feature_select_strategy {family.config.vision_feature_select_strategy} leaves out a patch of a "
            "tower without a class token: take config.json from the original checkpoint"
        )
    return pixtral.vision_encoder(family, pixtral.VisionEncoder(family.model, family.normalization, family.layers))


def _project_native(family: Llava) -> GraphSource:
    return GraphSource(
        module=Projector(family.model),
        inputs=(Port("image_features", torch.float32, ("patches", family.feature_width)),),
        outputs=("image_embeddings",),
        sizes={"patches": 3},
        ranges={"patches": pixtral.patches_range(family)},
    )


_FIXED = Tower("fixed", _encode_fixed, project_fixed)
TOWERS = {
    "clip_vision_model": _FIXED,
    "siglip_vision_model": _FIXED,
    "pixtral": Tower("native", _encode_native, _project_native),
}
"""By the tower's `model_type`."""
FAMILY = Llava
