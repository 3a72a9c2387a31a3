"""Qwen2-VL (Wang et al. 2024): native resolution, full attention, 2 x 2 patch merger, multimodal rotary embedding.

The runtime hands patches over so that those which are merged lie together (`edgevlm_runtime.images.kinds.native`): no
graph depends on the image's shape but through the number of rows. Later members of the line are subclasses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import GraphSource, Port, Range

Tables = tuple[Tensor, Tensor]
"""cos and sin, [patches, head_dim/2] each."""


class Qwen2VL(Family):
    """`Qwen2VLForConditionalGeneration`."""

    model_type = "qwen2_vl"
    image_kind = "native"
    projector_module = "model.visual.merger"
    mrope = True

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return "qwen2.5-vl"

    @property
    def vision_width(self) -> int:
        """Width of a patch's features."""
        return int(self.config.vision_config.embed_dim)

    @property
    def merged(self) -> int:
        """Patches that become one image token."""
        return int(self.config.vision_config.spatial_merge_size**2)

    @property
    def patch_ports(self) -> tuple[Port, ...]:
        """What the vision encoder is told of each patch."""
        vision = self.config.vision_config
        return (
            Port("patches", torch.uint8, ("patches", vision.in_channels * vision.patch_size**2)),
            Port("position_ids", torch.int64, ("patches", 2)),
        )

    @property
    def most_patches(self) -> int:
        """Those of an image of the largest size, or of one that fills the context."""
        patches = int(self.image_options["max_pixels"]) // self.config.vision_config.patch_size**2
        return int(min(patches, self.context * self.merged))

    @property
    def patches_range(self) -> Range:
        """From one image token to `most_patches`."""
        tokens = max(1, self.most_patches // self.merged)
        return self.merged, -(-tokens // 2) * self.merged, tokens * self.merged

    def vision_encoder(self) -> GraphSource:
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization),
            inputs=self.patch_ports,
            outputs=("image_features",),
            sizes={"patches": 2 * self.patches_range[0]},
            ranges={"patches": self.patches_range},
        )

    def projector(self) -> GraphSource:
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("patches", self.vision_width)),),
            outputs=("image_embeddings",),
            sizes={"patches": 2 * self.merged},
            ranges={"patches": self.patches_range},
        )


class VisionEncoder(nn.Module):
    """patches uint8 [P, C*S*S], position_ids int64 [P, 2] to float32 [P, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=1)

    def forward(self, patches: Tensor, position_ids: Tensor) -> Tensor:
        visual = self.model.model.visual
        hidden = self.embed(patches)[None]
        tables = self.tables(hidden, position_ids)
        for block in visual.blocks:
            hidden = self.layer(block, hidden, tables)
        return hidden[0]

    def embed(self, patches: Tensor) -> Tensor:
        """Linear patch embedding; the kernel's frames are summed, since an image is one frame repeated."""
        projection = self.model.model.visual.patch_embed.proj
        channels = self.model.config.vision_config.in_channels
        pixels = self.normalize(patches.view(-1, channels, patches.shape[1] // channels))
        return nn.functional.linear(pixels.flatten(1), projection.weight.sum(2).flatten(1), projection.bias)

    def tables(self, hidden: Tensor, position_ids: Tensor) -> Tables:
        """What rotates queries and keys by their rows and columns."""
        cos, sin = self.model.model.visual.rotary_pos_emb(hidden, position_ids)
        half = cos.shape[-1] // 2
        return cos[:, :half], sin[:, :half]

    def layer(
        self, block: nn.Module, hidden: Tensor, tables: Tables, valid: Tensor | None = None, window: int = 0
    ) -> Tensor:
        """One block. hidden: [1, P, width]; attention among all rows, or within windows of `window` rows; keys that
        are not `valid` [P] do not count."""
        hidden = hidden + self._attend(block.attn, block.norm1(hidden), tables, valid, window)  # type: ignore[arg-type, operator]
        after: Tensor = hidden + block.mlp(block.norm2(hidden))  # type: ignore[operator]
        return after

    def _attend(self, attn: nn.Module, hidden: Tensor, tables: Tables, valid: Tensor | None, window: int) -> Tensor:
        heads: int = attn.num_heads  # type: ignore[assignment]
        scale: float = attn.scaling  # type: ignore[assignment]
        qkv, width = attn.qkv(hidden), hidden.shape[-1]  # type: ignore[operator]
        q, k, v = (qkv[..., start : start + width] for start in (0, width, 2 * width))
        q, k = (ops.rotary(x, *tables, heads) for x in (q, k))
        if window:
            q, k, v = (x.reshape(-1, window, x.shape[-1]) for x in (q, k, v))
        mask = None if valid is None else valid.view(-1, window) if window else valid[None]
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


FAMILY = Qwen2VL
