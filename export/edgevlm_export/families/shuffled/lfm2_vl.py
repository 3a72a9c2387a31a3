"""LFM2-VL (Liquid AI 2025): a SigLIP 2 tower at native resolution, convolutions beside attention.

Most layers of the text model (LFM2) have no keys and values: they convolve each channel over the last few positions,
gated before and after, and carry these positions as a state. The runtime hands the four patches of a token over side by
side (`edgevlm_runtime.images.kinds.naflex`), so that pixel unshuffle is a reshape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

from edgevlm_export.families.base import Family
from edgevlm_export.families.llavas.llava import check_tower
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.families.text_config import attention_layers
from edgevlm_export.graphs import ops
from edgevlm_export.graphs.source import Forwards, GraphSource, Port, Range
from edgevlm_runtime.bundle.decoder_info import StateInfo
from edgevlm_runtime.images.kinds import naflex


class Lfm2VL(Family):
    """`Lfm2VlForConditionalGeneration`."""

    model_type = "lfm2_vl"
    image_kind = "naflex"
    projector_module = "model.multi_modal_projector.linear_1"  # behind pixel unshuffle, which only moves rows
    last_norm = "embedding_norm"

    @property
    def states(self) -> tuple[StateInfo, ...]:
        return states(self.text_config)

    @property
    def forwards(self) -> Forwards:
        return ((Lfm2ShortConv, short_convolution),)

    @property
    def lengths(self) -> Range:
        """Patches of a tile or a small image."""
        options = naflex.Options(**self.image_options)
        return options.merge_size**2, options.most_patches, options.most_patches

    def vision_encoder(self) -> GraphSource:
        vision, options = self.config.vision_config, self.image_options
        check_tower(vision, {"siglip2_vision_model"})
        values, side = vision.num_channels * vision.patch_size**2, options["grid_side"]
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, self.config.downsample_factor**2),
            inputs=(
                Port("patches", torch.uint8, ("tiles", "patches", values)),
                Port("rows", torch.float32, ("tiles", "patches", side)),
                Port("columns", torch.float32, ("tiles", "patches", side)),
                Port("valid", torch.bool, ("tiles", "patches")),
            ),
            outputs=("image_features",),
            sizes={"tiles": 2, "patches": 3 * options["merge_size"] ** 2},
            ranges={"patches": self.lengths},
        )

    def projector(self) -> GraphSource:
        merged = self.config.downsample_factor**2
        width = self.config.vision_config.hidden_size * merged
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tiles", "tokens", width)),),
            outputs=("image_embeddings",),
            sizes={"tiles": 2, "tokens": 3},
            ranges={"tokens": (1, *(length // merged for length in self.lengths[1:]))},
        )


def states(config: PreTrainedConfig) -> tuple[StateInfo, ...]:
    """Of an LFM2 text model: what each convolution saw last, [1, kernel - 1, hidden]."""
    layers = sorted(set(range(config.num_hidden_layers)) - set(attention_layers(config)))
    shape = (1, int(config.conv_L_cache) - 1, int(config.hidden_size))
    return tuple(StateInfo(_state(layer), "float32", shape) for layer in layers)


def _state(layer: int) -> str:
    return f"conv.{layer}"


def short_convolution(module: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
    """`Lfm2ShortConv.forward` over positions as they lie, [1, S, hidden], its state carried by the graph."""
    before, after, x = module.in_proj(hidden_states).chunk(3, dim=-1)
    convolved = ops.causal_conv(before * x, module.conv.weight, module.conv.bias, _state(module.layer_idx))
    projected: Tensor = module.out_proj(after * convolved)
    return projected


class VisionEncoder(nn.Module):
    """patches uint8 [T, L, P*P*C], rows and columns float32 [T, L, G], valid bool [T, L] to float32 [T, L/M, M*width]:
    M = merge_size**2 consecutive patches become one row, normed where the projector norms them.

    A patch's position embedding is the table's [G, G, width], weighted by row and column.
    """

    def __init__(self, model: PreTrainedModel, normalization: Normalization, merged: int):
        super().__init__()
        self.model = model
        self.merged = merged
        self.normalize = Normalize(normalization, axes=0)

    def forward(self, patches: Tensor, rows: Tensor, columns: Tensor, valid: Tensor) -> Tensor:
        tower = self.model.model.vision_tower
        channels = self.model.config.vision_config.num_channels
        pixels = self.normalize(patches.unflatten(-1, (-1, channels))).flatten(-2)
        places = (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)
        hidden = tower.embeddings.patch_embedding(pixels) + places @ tower.embeddings.position_embedding.weight
        for layer in tower.encoder.layers:
            hidden = hidden + _attend(layer.self_attn, layer.layer_norm1(hidden), valid)
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        torch._check(hidden.shape[1] % self.merged == 0)
        features: Tensor = tower.post_layernorm(hidden).unflatten(1, (-1, self.merged)).flatten(2)
        norm = self.model.model.multi_modal_projector.layer_norm
        return features if norm is None else norm(features)


def _attend(attention: nn.Module, hidden: Tensor, valid: Tensor) -> Tensor:
    """Among the patches of each tile that are not padding."""
    q, k, v = (getattr(attention, name)(hidden) for name in ("q_proj", "k_proj", "v_proj"))
    mixed = ops.attention(q, k, v, attention.num_heads, attention.scale, valid)  # type: ignore[arg-type]
    projected: Tensor = attention.out_proj(mixed)  # type: ignore[operator]
    return projected


class Projector(nn.Module):
    """The projector's two layers: [T, tokens, width] to [T, tokens, hidden]."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        projector = self.model.model.multi_modal_projector
        embeddings: Tensor = projector.linear_2(projector.act(projector.linear_1(image_features)))
        return embeddings


FAMILY = Lfm2VL
