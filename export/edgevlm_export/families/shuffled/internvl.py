"""InternVL 2.5, 3 and 3.5 (Chen et al. 2024, Zhu et al. 2025): dynamic tiles through InternViT, pixel shuffle, a
two-layer projector.

These are the checkpoints that transformers loads by itself (`-hf`); the original ones bring code of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.llavas.llava import Projector, check_tower
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, over_pixels
from edgevlm_runtime.errors import CheckpointError


class InternVL(Family):
    """`InternVLForConditionalGeneration`."""

    model_type = "internvl"
    image_kind = "dynamic"
    projector_module = "model.multi_modal_projector"

    @classmethod
    def choices(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        return "diverse", "random"  # of each tile: text stands between them

    def vision_encoder(self) -> GraphSource:
        vision, side = self.config.vision_config, self.image_options["tile"]
        check_tower(vision, {"internvl_vision"})
        layer, strategy = self.config.vision_feature_layer, self.config.vision_feature_select_strategy
        depth = int(vision.num_hidden_layers)
        if not isinstance(layer, int) or not -depth - 1 <= layer <= depth:
            raise CheckpointError(f"vision_feature_layer {layer} is no layer of a tower of {depth}")
        if strategy != "default":  # a class token among the patches is no square to shuffle
            raise CheckpointError(f"vision_feature_select_strategy {strategy!r}: InternVL knows 'default' alone")
        return over_pixels(VisionEncoder(self.model, self.normalization), side, side, "tiles")

    def projector(self) -> GraphSource:
        width = self.config.vision_config.hidden_size * int(1 / self.config.downsample_ratio) ** 2
        tokens = self.image_options["tokens_per_tile"]
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tiles", tokens, width)),),
            outputs=("image_embeddings",),
            sizes={"tiles": 2},
        )


class VisionEncoder(nn.Module):
    """pixels uint8 [tiles, S, S, 3] to float32 [tiles, tokens, width / downsample_ratio**2], neighbouring patches side
    by side."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)

    def forward(self, pixels: Tensor) -> Tensor:
        model, layer = self.model.model, self.model.config.vision_feature_layer
        output = model.vision_tower(self.normalize(pixels.permute(0, 3, 1, 2)), output_hidden_states=layer != -1)
        hidden = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        patches = hidden[:, 1:]  # without the class token
        rows = int(patches.shape[1] ** 0.5)
        grid = patches.unflatten(1, (rows, rows))
        shuffled: Tensor = model.pixel_shuffle(grid, scale_factor=self.model.config.downsample_ratio).flatten(1, 2)
        return shuffled


FAMILY = InternVL
