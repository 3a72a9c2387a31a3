"""PaddleOCR-VL (Cui et al. 2025): Qwen2-VL's images and positions, a SigLIP tower that rotates, an ERNIE 4.5 decoder.

The tower's learned grid of positions is interpolated as for Qwen3-VL, but by the centres of patches. transformers keeps
patches in raster order up to the projector, which norms them and lays those of a token side by side; the graphs have
them in that order from the start. Features are what both have alike, behind the merging.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.families.qwens.qwen2_vl import Qwen2VL, Tables
from edgevlm_export.families.qwens.qwen3_vl import GRID_PORTS
from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import GraphSource, Port


class PaddleOCRVL(Qwen2VL):
    """`PaddleOCRVLForConditionalGeneration`."""

    model_type = "paddleocr_vl"
    projector_module = "model.projector.linear_1"  # behind the norm and the merging

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return None  # every published checkpoint has one

    @property
    def vision_width(self) -> int:
        """Width of a token's features, its patches side by side."""
        return int(self.config.vision_config.hidden_size) * self.merged

    @property
    def patch_ports(self) -> tuple[Port, ...]:
        vision = self.config.vision_config
        return (
            Port("patches", torch.uint8, ("patches", vision.num_channels * vision.patch_size**2)),
            Port("position_ids", torch.int64, ("patches", 2)),
            *GRID_PORTS,
        )

    def vision_encoder(self) -> GraphSource:
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, self.merged),
            inputs=self.patch_ports,
            outputs=("image_features",),
            sizes={"patches": 2 * self.patches_range[0]},
            ranges={"patches": self.patches_range},
        )

    def projector(self) -> GraphSource:
        least, usual, most = (patches // self.merged for patches in self.patches_range)
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tokens", self.vision_width)),),
            outputs=("image_embeddings",),
            sizes={"tokens": 3},
            ranges={"tokens": (least, usual, most)},
        )


class VisionEncoder(nn.Module):
    """patches uint8 [P, C*S*S], position_ids int64 [P, 2], grid_indices int64 and grid_weights float32 [P, 4] to
    float32 [P/merged, width*merged]: normed, `merged` consecutive patches side by side."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, merged: int):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=1)
        self.merged = merged

    def forward(self, patches: Tensor, position_ids: Tensor, grid_indices: Tensor, grid_weights: Tensor) -> Tensor:
        tower = self.model.model.visual.vision_model
        places = (tower.embeddings.position_embedding(grid_indices) * grid_weights[:, :, None]).sum(1)
        hidden = (self._embed(patches) + places)[None]
        cos, sin = tower.encoder.rotary_pos_emb(hidden, position_ids)
        half = cos.shape[-1] // 2
        tables = cos[:, :half], sin[:, :half]
        for layer in tower.encoder.layers:
            hidden = hidden + _attend(layer.self_attn, layer.layer_norm1(hidden), tables)
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        features: Tensor = self.model.model.projector.pre_norm(tower.post_layernorm(hidden[0]))
        torch._check(features.shape[0] % self.merged == 0)
        rows: Tensor = features.unflatten(0, (-1, self.merged)).flatten(1)
        return rows

    def _embed(self, patches: Tensor) -> Tensor:
        """The convolution of a patch's own size, as a product."""
        projection = self.model.model.visual.vision_model.embeddings.patch_embedding
        channels = self.model.config.vision_config.num_channels
        pixels = self.normalize(patches.view(-1, channels, patches.shape[1] // channels))
        return nn.functional.linear(pixels.flatten(1), projection.weight.flatten(1), projection.bias)


def _attend(attn: nn.Module, hidden: Tensor, tables: Tables) -> Tensor:
    heads: int = attn.num_heads  # type: ignore[assignment]
    q, k = (ops.rotary(project(hidden), *tables, heads) for project in (attn.q_proj, attn.k_proj))  # type: ignore[operator]
    output = ops.attention(q, k, attn.v_proj(hidden), heads, attn.scaling)  # type: ignore[operator, arg-type]
    projected: Tensor = attn.out_proj(output)  # type: ignore[operator]
    return projected


class Projector(nn.Module):
    """The projector's two layers: [tokens, width*merged] to [tokens, hidden]."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        projector = self.model.model.projector
        embeddings: Tensor = projector.linear_2(projector.act(projector.linear_1(image_features)))
        return embeddings


FAMILY = PaddleOCRVL
