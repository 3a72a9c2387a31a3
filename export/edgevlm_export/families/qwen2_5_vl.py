"""Qwen2.5-VL (Bai et al. 2025): native resolution, window attention, 2 x 2 patch merger, multimodal rotary embedding.

The runtime hands patches over in window order with every window padded to L patches (`edgevlm_runtime.images.native`),
so window attention is a reshape: no graph depends on the image's shape but through the number of rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family, Normalization, Normalize
from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import GraphSource, Port, Range


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration`."""

    model_type = "qwen2_5_vl"
    projector_module = "model.visual.merger"
    mrope = True

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return "qwen2.5-vl"

    @property
    def window_patches(self) -> int:
        """Patches in one attention window, L."""
        vision = self.config.vision_config
        cells = vision.window_size // vision.spatial_merge_size // vision.patch_size
        return int((cells * vision.spatial_merge_size) ** 2)

    def vision_encoder(self) -> GraphSource:
        vision = self.config.vision_config
        values = vision.in_channels * vision.patch_size**2
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, self.window_patches),
            inputs=(
                Port("patches", torch.uint8, ("patches", values)),
                Port("position_ids", torch.int64, ("patches", 2)),
                Port("valid", torch.bool, ("patches",)),
            ),
            outputs=("image_features",),
            sizes={"patches": 2 * self.window_patches},
            ranges={"patches": self.patches_range},
        )

    @property
    def patches_range(self) -> Range:
        """From one window to as many as an image of the largest size, or one that fills the context, can need.

        Windows at an image's edges are padded: half as many again covers every shape but long strips.
        """
        vision, options = self.config.vision_config, self.image_options
        merged = vision.spatial_merge_size**2
        patches = min(options["max_pixels"] // vision.patch_size**2, self.context * merged)
        windows = math.ceil(1.5 * patches / self.window_patches)
        return self.window_patches, math.ceil(windows / 2) * self.window_patches, windows * self.window_patches

    def projector(self) -> GraphSource:
        vision = self.config.vision_config
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("patches", vision.hidden_size)),),
            outputs=("image_embeddings",),
            sizes={"patches": 2 * vision.spatial_merge_size**2},
            ranges={"patches": self.patches_range},
        )


class VisionEncoder(nn.Module):
    """patches uint8 [W*L, C*P*P], position_ids int64 [W*L, 2], valid bool [W*L] to float32 [W*L, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, window: int):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=1)
        self.window = window

    def forward(self, patches: Tensor, position_ids: Tensor, valid: Tensor) -> Tensor:
        visual = self.model.model.visual
        torch._check(patches.shape[0] % self.window == 0)
        hidden = self._embed(patches)[None]
        cos, sin = visual.rotary_pos_emb(hidden, position_ids)
        half = cos.shape[-1] // 2
        tables = (cos[:, :half], sin[:, :half])
        for index, block in enumerate(visual.blocks):
            window = -1 if index in visual.fullatt_block_indexes else self.window
            hidden = hidden + self._attend(block.attn, block.norm1(hidden), tables, valid, window)
            hidden = hidden + block.mlp(block.norm2(hidden))
        return hidden[0]

    def _embed(self, patches: Tensor) -> Tensor:
        """Linear patch embedding; the kernel's frames are summed, since an image is one frame repeated."""
        weight = self.model.model.visual.patch_embed.proj.weight.sum(2).flatten(1)
        channels = self.model.config.vision_config.in_channels
        pixels = self.normalize(patches.view(-1, channels, patches.shape[1] // channels))
        return nn.functional.linear(pixels.flatten(1), weight)

    def _attend(
        self, attn: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], valid: Tensor, window: int
    ) -> Tensor:
        """Attention within windows of `window` rows, or among all rows for -1. hidden: [1, W*L, width]."""
        heads: int = attn.num_heads  # type: ignore[assignment]
        scale: float = attn.scaling  # type: ignore[assignment]
        qkv, width = attn.qkv(hidden), hidden.shape[-1]  # type: ignore[operator]
        q, k, v = (qkv[..., start : start + width] for start in (0, width, 2 * width))
        q, k = (ops.rotary(x, *tables, heads) for x in (q, k))
        if window > 0:
            q, k, v = (x.reshape(-1, window, x.shape[-1]) for x in (q, k, v))
        mask = valid.view(-1, window) if window > 0 else valid[None]
        output = ops.attention(q, k, v, heads, scale, mask)
        projected: Tensor = attn.proj(output.reshape(hidden.shape))  # type: ignore[operator]
        return projected


class Projector(nn.Module):
    """The patch merger: merge_size**2 consecutive rows become one image embedding."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings: Tensor = self.model.model.visual.merger(image_features)
        return embeddings


FAMILY = Qwen25VL
