"""Gemma 3 (Gemma Team 2025): a SigLIP tower, patches pooled to few tokens, sliding and global layers.

An image's tokens see each other, in sliding layers within the window alone. The two kinds of layers have rotary tables
of their own, so the graph's operators rotate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.gemma3.modeling_gemma3 import create_masks_for_vision_model

from edgevlm_export.families.base import Family
from edgevlm_export.families.blocks import masks
from edgevlm_export.families.llavas.llava import Projector, check_tower
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, over_pixels
from edgevlm_runtime.errors import UnsupportedModel


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration`."""

    model_type = "gemma3"
    image_kind = "fixed"
    projector_module = "model.multi_modal_projector"
    attention = "images"

    def __init__(
        self, model: PreTrainedModel, normalization: Normalization, image_options: dict[str, Any], context: int
    ):
        super().__init__(model, normalization, image_options, context)
        if self.text_config.use_bidirectional_attention:  # as in embedding models
            raise UnsupportedModel(
                "Gemma 3 checkpoint not supported: use_bidirectional_attention: text sees what follows"
            )

    @classmethod
    def template_image(cls, config: PreTrainedConfig) -> int:
        return config.boi_token_id  # type: ignore[no-any-return]

    def vision_encoder(self) -> GraphSource:
        return siglip_encoder(self)

    def projector(self) -> GraphSource:
        return siglip_projector(self)

    def block_masks(self, embeddings: Tensor, blocks: Tensor) -> Any:
        return masks(create_masks_for_vision_model, self.text_config, embeddings, blocks)


def siglip_encoder(family: Family) -> GraphSource:
    """Pixels of one size through a SigLIP tower whose last, normed hidden states are the features.

    Raises `UnsupportedModel` for another tower.
    """
    check_tower(family.config.vision_config, {"siglip_vision_model"})
    height, width = family.image_options["height"], family.image_options["width"]
    return over_pixels(VisionEncoder(family.model, family.normalization), height, width)


def siglip_projector(family: Family) -> GraphSource:
    """What `siglip_encoder` gives, as many patches as the tower has places for, through the multi-modal projector."""
    vision = family.config.vision_config
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
    return GraphSource(
        module=Projector(family.model),
        inputs=(Port("image_features", torch.float32, ("images", patches, vision.hidden_size)),),
        outputs=("image_embeddings",),
        sizes={"images": 2},
    )


class VisionEncoder(nn.Module):
    """pixels uint8 [N, H, W, 3] to float32 [N, patches, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model.model.vision_tower(self.normalize(pixels.permute(0, 3, 1, 2))).last_hidden_state
        return features


FAMILY = Gemma3
