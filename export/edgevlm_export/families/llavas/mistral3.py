"""Mistral Small 3.1, 3.2 and Ministral 3 (Mistral AI 2025): Pixtral's tower, a patch merger, a Mistral decoder."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgevlm_export.families.llavas import pixtral
from edgevlm_export.families.llavas.llava import Llava, check_tower
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_runtime.errors import UnsupportedModel


class Mistral3(Llava):
    """`Mistral3ForConditionalGeneration`."""

    model_type = "mistral3"
    image_kind = "native"
    projector_module = "model.multi_modal_projector.patch_merger.merging_layer"  # behind the norm and the unfolding
    after_image: ClassVar[str | None] = None

    @property
    def merged(self) -> int:
        """Patches that become one image token."""
        return int(self.config.spatial_merge_size**2)

    def vision_encoder(self) -> GraphSource:
        check_tower(self.config.vision_config, {"pixtral"})
        self.check_layers()
        if len(self.layers) != 1:
            raise UnsupportedModel(f"vision_feature_layer not supported: {list(self.layers)}: mistral3 norms one layer")
        return pixtral.vision_encoder(self, VisionEncoder(self.model, self.normalization, self.layers, self.merged))

    def projector(self) -> GraphSource:
        tokens = tuple(patches // self.merged for patches in pixtral.patches_range(self))
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tokens", self.feature_width * self.merged)),),
            outputs=("image_embeddings",),
            sizes={"tokens": 3},
            ranges={"tokens": (tokens[0], tokens[1], tokens[2])},
        )


class VisionEncoder(pixtral.VisionEncoder):
    """Likewise, normed, and unfolded as the patch merger has it: `merged` consecutive patches become one row [tokens,
    width*merged], channel by channel."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, layers: tuple[int, ...], merged: int):
        super().__init__(model, normalization, layers)
        self.merged = merged

    def forward(self, patches: Tensor, position_ids: Tensor) -> Tensor:
        features: Tensor = self.model.model.multi_modal_projector.norm(super().forward(patches, position_ids))
        torch._check(features.shape[0] % self.merged == 0)
        rows: Tensor = features.unflatten(0, (-1, self.merged)).transpose(1, 2).flatten(1)
        return rows


class Projector(nn.Module):
    """The patch merger's layer and the projector's two: [tokens, width*merged] to [tokens, hidden]."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        projector = self.model.model.multi_modal_projector
        merged = projector.patch_merger.merging_layer(image_features)
        embeddings: Tensor = projector.linear_2(projector.act(projector.linear_1(merged)))
        return embeddings


FAMILY = Mistral3
