"""Qwen3-VL (Bai et al. 2025): Qwen2-VL with a learned grid of positions in its tower, and DeepStack (Meng et al. 2024).

Features of some of the tower's layers have mergers of their own; what these give is added to image tokens' hidden
states behind the decoder's first layers. They come as further columns of the projector's rows, one `deepstack_i` for
each of these decoder layers. The grid is interpolated by indices and weights that the runtime works out for each patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.normalization import Normalization
from edgevlm_export.families.qwens.qwen2_vl import Qwen2VL
from edgevlm_export.families.qwens.qwen2_vl import VisionEncoder as PlainVisionEncoder
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_runtime.bundle.decoder_info import ImageColumns

TAPS = 4
"""Places of the grid that a patch's position is interpolated from."""
GRID_PORTS = (
    Port("grid_indices", torch.int64, ("patches", TAPS)),
    Port("grid_weights", torch.float32, ("patches", TAPS)),
)
"""What the vision encoder is told of these places, and how much each counts."""


class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`."""

    model_type = "qwen3_vl"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return None  # every published checkpoint has one

    @property
    def vision_width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def patch_ports(self) -> tuple[Port, ...]:
        return (
            *super().patch_ports,
            *GRID_PORTS,
        )

    @property
    def deepstack(self) -> dict[str, int]:
        """Layers of the tower whose features enter the decoder, by the names of its inputs, in order."""
        vision = self.config.vision_config
        layers = [layer for layer in range(vision.depth) if layer in vision.deepstack_visual_indexes]
        return {f"deepstack_{number}": layer for number, layer in enumerate(layers)}

    @property
    def image_columns(self) -> tuple[ImageColumns, ...]:
        return tuple(ImageColumns(name, int(self.text_config.hidden_size)) for name in self.deepstack)

    def column_arguments(self, columns: Mapping[str, Tensor]) -> dict[str, Any]:
        """The text model's rows to add to are all of every sequence, by its number: those of text get zeros."""
        if not columns:
            return {}
        given = list(columns.values())
        return {"visual_pos_masks": torch.arange(given[0].shape[0]), "deepstack_visual_embeds": given}

    def vision_encoder(self) -> GraphSource:
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, tuple(self.deepstack.values())),
            inputs=self.patch_ports,
            outputs=("image_features", *self._features),
            sizes={"patches": 2 * self.patches_range[0]},
            ranges={"patches": self.patches_range},
        )

    def projector(self) -> GraphSource:
        names = ("image_features", *self._features)
        return GraphSource(
            module=Projector(self.model, tuple(self.deepstack.values())),
            inputs=tuple(Port(name, torch.float32, ("patches", self.vision_width)) for name in names),
            outputs=("image_embeddings",),
            sizes={"patches": 2 * self.merged},
            ranges={"patches": self.patches_range},
        )

    @property
    def _features(self) -> tuple[str, ...]:
        return tuple(f"{name}_features" for name in self.deepstack)


class VisionEncoder(PlainVisionEncoder):
    """As for Qwen2-VL, with grid_indices int64 and grid_weights float32 [P, 4]; features of `layers` [P, width] behind
    those of the last."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, layers: tuple[int, ...]):
        super().__init__(model, normalization)
        self.layers = layers

    def forward(  # type: ignore[override]
        self, patches: Tensor, position_ids: Tensor, grid_indices: Tensor, grid_weights: Tensor
    ) -> tuple[Tensor, ...]:
        visual = self.model.model.visual
        places = (visual.pos_embed(grid_indices) * grid_weights[:, :, None]).sum(1)
        hidden = (self.embed(patches) + places)[None]
        tables, features = self.tables(hidden, position_ids), list[Tensor]()
        for index, block in enumerate(visual.blocks):
            hidden = self.layer(block, hidden, tables)
            if index in self.layers:
                features.append(hidden[0])
        return hidden[0], *features


class Projector(nn.Module):
    """The patch mergers: features of the last layer, then of `layers`, [P, width] each, to rows
    [tokens, hidden * (1 + layers)]."""

    def __init__(self, model: PreTrainedModel, layers: tuple[int, ...]):
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, *features: Tensor) -> Tensor:
        visual = self.model.model.visual
        places = [list(visual.deepstack_visual_indexes).index(layer) for layer in self.layers]
        mergers = [visual.merger, *(visual.deepstack_merger_list[place] for place in places)]
        rows = [merger(one) for merger, one in zip(mergers, features, strict=True)]
        return torch.cat(rows, dim=-1)


FAMILY = Qwen3VL
