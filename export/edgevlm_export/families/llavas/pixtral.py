"""Pixtral's tower (Agrawal et al. 2024): native resolution, full attention, rotary embedding by row and column.

LLaVA has it as one of its towers, Mistral 3 with a patch merger behind it. The runtime hands patches over so that those
which are merged lie together (`edgevlm_runtime.images.kinds.native`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgevlm_export.families.base import Family
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, Range
from edgevlm_runtime.images.kinds import native


def patches_range(family: Family) -> Range:
    """Patches of an image: from those of one token to those of the largest image, or of one that fills the context."""
    options = native.Options(**family.image_options)
    merged = options.merge_size**2
    tokens = min(options.most_tokens, family.context)
    return merged, -(-tokens // 2) * merged, tokens * merged


def vision_encoder(family: Family, module: VisionEncoder) -> GraphSource:
    """The tower's graph; `module` is a `VisionEncoder`."""
    vision, merged = family.config.vision_config, int(family.image_options["merge_size"]) ** 2
    return GraphSource(
        module=module,
        inputs=(
            Port("patches", torch.uint8, ("patches", vision.num_channels * vision.patch_size**2)),
            Port("position_ids", torch.int64, ("patches", 2)),
        ),
        outputs=("image_features",),
        sizes={"patches": 3 * merged},
        rotary="outside",
        ranges={"patches": patches_range(family)},
    )


class VisionEncoder(nn.Module):
    """patches uint8 [P, C*S*S], position_ids int64 [P, 2] to the hidden states of `layers` side by side, float32
    [P, width]; layer 0 is the embeddings, negative ones count from the end."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization, layers: tuple[int, ...]):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=1)
        self.layers = layers

    def forward(self, patches: Tensor, position_ids: Tensor) -> Tensor:
        tower = self.model.model.vision_tower
        kernel = tower.patch_conv.weight
        pixels = self.normalize(patches.view(-1, kernel.shape[1], patches.shape[1] // kernel.shape[1]))
        hidden = tower.ln_pre(nn.functional.linear(pixels.flatten(1), kernel.flatten(1)))[None]
        cos, sin = tower.patch_positional_embedding(hidden, position_ids)
        states = [hidden]
        for layer in tower.transformer.layers:
            states.append(layer(states[-1], None, position_embeddings=(cos[None], sin[None])))
        return torch.cat([states[layer][0] for layer in self.layers], dim=-1)
