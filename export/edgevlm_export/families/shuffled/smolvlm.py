"""SmolVLM2 (Marafioti et al. 2025): tiles through a SigLIP tower, pixel shuffle, one linear projection."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, over_pixels


class SmolVLM(Family):
    """`SmolVLMForConditionalGeneration`."""

    model_type = "smolvlm"
    image_kind = "tiles"
    projector_module = "model.connector"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return "smolvlm"

    @property
    def text_model(self) -> nn.Module:
        text_model: nn.Module = self.model.model.text_model
        return text_model

    @classmethod
    def choices(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        return "diverse", "random"  # of each tile: text stands between them

    def vision_encoder(self) -> GraphSource:
        side = self.image_options["tile"]
        return over_pixels(VisionEncoder(self.model, self.normalization, side), side, side, "tiles")

    def projector(self) -> GraphSource:
        vision = self.config.vision_config
        patches = (self.image_options["tile"] // vision.patch_size) ** 2
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tiles", patches, vision.hidden_size)),),
            outputs=("image_embeddings",),
            sizes={"tiles": 2},
        )


class VisionEncoder(nn.Module):
    """pixels uint8 [tiles, S, S, 3] to float32 [tiles, patches, width].

    Tiles are never padded, so every tile has the same position ids.
    """

    position_ids: Tensor

    def __init__(self, model: PreTrainedModel, normalization: Normalization, side: int):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)
        embeddings = type(model.model.vision_model.embeddings)
        self.register_buffer("position_ids", tile_position_ids(embeddings, model.config.vision_config, side))

    def forward(self, pixels: Tensor) -> Tensor:
        tower = self.model.model.vision_model
        patches = tower.embeddings.patch_embedding(self.normalize(pixels.permute(0, 3, 1, 2)))
        hidden = patches.flatten(2).transpose(1, 2) + tower.embeddings.position_embedding(self.position_ids)
        hidden = tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        features: Tensor = tower.post_layernorm(hidden)
        return features


@torch.no_grad()
def tile_position_ids(kind: type[nn.Module], config: PreTrainedConfig, side: int) -> Tensor:
    """Position ids [1, patches] of a full tile, by the bucketing of transformers' own module, of class `kind`.

    The embedding is run with one channel, no patch content, and each position embedded as its own number.
    """
    narrow = copy.deepcopy(config)
    narrow.hidden_size = 1
    embeddings: Any = kind(narrow)
    embeddings.patch_embedding.weight.zero_()
    embeddings.patch_embedding.bias.zero_()
    embeddings.position_embedding.weight.copy_(torch.arange(embeddings.num_positions)[:, None])
    patches = side // config.patch_size
    mask = torch.ones(1, patches, patches, dtype=torch.bool)
    ids: Tensor = embeddings(torch.zeros(1, config.num_channels, side, side), mask)
    return ids[..., 0].round().to(torch.int64)


class Projector(nn.Module):
    """Pixel shuffle and projection."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings: Tensor = self.model.model.connector(image_features)
        return embeddings


FAMILY = SmolVLM
