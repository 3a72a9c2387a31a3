"""LLaVA (Liu et al. 2023): a CLIP, SigLIP or Pixtral tower, a two-layer projector, any text decoder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.choosing import get_method
from edgevlm_export.families.choosing.graph import SCORES
from edgevlm_export.families.llavas import pixtral
from edgevlm_export.families.llavas.encoder import ScoringEncoder, VisionEncoder, deepest, feature_layers
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

    @classmethod
    def resizes(cls, config: PreTrainedConfig) -> bool:
        return cls.images_of(config) == "fixed"

    @classmethod
    def choices(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        if cls.images_of(config) != "fixed":
            return ()
        return ("diverse", *(("attention",) if deepest(config) else ()), "random")

    @classmethod
    def scoring_layer(cls, config: PreTrainedConfig) -> str:
        return f"model.vision_tower.encoder.layers.{deepest(config) - 1}"

    @classmethod
    def scores(cls, config: PreTrainedConfig, weights: Tensor) -> Tensor:
        received = (
            weights[:, :, 0].mean(1) if TOWERS[config.vision_config.model_type].class_token else weights.mean((1, 2))
        )
        return received[:, 1:] if cls.drops_first(config) else received

    @classmethod
    def drops_first(cls, config: PreTrainedConfig) -> bool:
        """Whether the projector gets the tower's features without the first of an image, the class token's."""
        return bool(config.vision_feature_select_strategy == "default")

    @property
    def towers(self) -> Collection[str]:
        """Vision towers of this family, by `model_type`: all, or those whose images have one size."""
        kind = self.image_kind
        return [name for name, tower in TOWERS.items() if kind is None or tower.image_kind == "fixed"]

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states of the tower that make the features; 0 is the embeddings, negative ones count from the end."""
        return feature_layers(self.config)

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
    class_token: bool = False
    """Whether the first of its places stands for the whole image."""


def _encode_fixed(family: Llava) -> GraphSource:
    config, parts = family.config, (family.model, family.normalization, family.layers)
    drops = family.drops_first(config)
    if family.fewer is None or not get_method(family.fewer.method).scored:
        return over_pixels(VisionEncoder(*parts, drops), *family.image_size)
    queries = 1 if TOWERS[config.vision_config.model_type].class_token else None
    scored = ScoringEncoder(*parts, drops, family.scoring_layer(config), queries, partial(family.scores, config))
    source = over_pixels(scored, *family.image_size)
    return replace(source, outputs=(*source.outputs, SCORES))


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


TOWERS = {
    "clip_vision_model": Tower("fixed", _encode_fixed, project_fixed, class_token=True),
    "siglip_vision_model": Tower("fixed", _encode_fixed, project_fixed),
    "pixtral": Tower("native", _encode_native, _project_native),
}
"""By the tower's `model_type`."""
FAMILY = Llava
