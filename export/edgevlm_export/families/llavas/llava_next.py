"""LLaVA-NeXT (Liu et al. 2024), also called LLaVA 1.6: LLaVA with an image in tiles of any resolution.

The runtime puts the tiles' rows into the order of the prompt (`edgevlm_runtime.images.kinds.anyres`); the learned row
that ends a line comes from the projector's graph, behind those of each tile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from edgevlm_export.families.llavas.llava import Llava, Projector


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`."""

    model_type = "llava_next"
    image_kind = "anyres"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return None  # every published checkpoint has one

    @property
    def image_size(self) -> tuple[int, int]:
        return int(self.image_options["tile"]), int(self.image_options["tile"])

    @property
    def projector_part(self) -> nn.Module:
        return LineEndingProjector(self.model)


class LineEndingProjector(Projector):
    """The projector, and the row that ends a line behind the rows of each tile: [N, patches + 1, hidden]."""

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings = super().forward(image_features)
        line_end = self.model.model.image_newline.expand(embeddings.shape[0], 1, -1)
        return torch.cat([embeddings, line_end], dim=1)


FAMILY = LlavaNext
