"""Qwen2.5-VL (Bai et al. 2025): Qwen2-VL with attention within windows in most layers of its tower.

The runtime hands patches over in window order with every window padded to L patches (see
`edgevlm_runtime.images.kinds.native`), so window attention is a reshape: no graph depends on the image's shape but
through the number of rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.families.qwens.qwen2_vl import Qwen2VL
from edgevlm_export.families.qwens.qwen2_vl import VisionEncoder as FullVisionEncoder
from edgevlm_export.graphs.source import GraphSource, Port, Range


class Qwen25VL(Qwen2VL):
    """`Qwen2_5_VLForConditionalGeneration`."""

    model_type = "qwen2_5_vl"

    @property
    def vision_width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def window_patches(self) -> int:
        """Patches in one attention window, L."""
        vision = self.config.vision_config
        cells = vision.window_size // vision.spatial_merge_size // vision.patch_size
        return int((cells * vision.spatial_merge_size) ** 2)

    @property
    def patch_ports(self) -> tuple[Port, ...]:
        return (*super().patch_ports, Port("valid", torch.bool, ("patches",)))

    @property
    def patches_range(self) -> Range:
        """From one window to `most_patches`.

        Windows at an image's edges are padded: half as many again covers every shape but long strips.
        """
        windows = math.ceil(1.5 * self.most_patches / self.window_patches)
        return self.window_patches, math.ceil(windows / 2) * self.window_patches, windows * self.window_patches

    def vision_encoder(self) -> GraphSource:
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, self.window_patches),
            inputs=self.patch_ports,
            outputs=("image_features",),
            sizes={"patches": 2 * self.window_patches},
            ranges={"patches": self.patches_range},
        )


class VisionEncoder(FullVisionEncoder):
    """patches uint8 [W*L, C*P*P], position_ids int64 [W*L, 2], valid bool [W*L] to float32 [W*L, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, window: int):
        super().__init__(model, normalization)
        self.window = window

    def forward(self, patches: Tensor, position_ids: Tensor, valid: Tensor) -> Tensor:  # type: ignore[override]
        visual = self.model.model.visual
        torch._check(patches.shape[0] % self.window == 0)
        hidden = self.embed(patches)[None]
        tables = self.tables(hidden, position_ids)
        for index, block in enumerate(visual.blocks):
            window = 0 if index in visual.fullatt_block_indexes else self.window
            hidden = self.layer(block, hidden, tables, valid, window)
        return hidden[0]


FAMILY = Qwen25VL
