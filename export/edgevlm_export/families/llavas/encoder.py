"""The vision encoder's graph of LLaVA: the hidden states that are selected, and scores of an image's tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.normalization import Normalization, Normalize


def feature_layers(config: PreTrainedConfig) -> tuple[int, ...]:
    """See `Llava.layers`."""
    layers = config.vision_feature_layer
    return (layers,) if isinstance(layers, int) else tuple(layers)


def deepest(config: PreTrainedConfig) -> int:
    """How many of the tower's layers the features have gone through."""
    depth = int(config.vision_config.num_hidden_layers)
    return max((layer if layer >= 0 else depth + 1 + layer for layer in feature_layers(config)), default=0)


class VisionEncoder(nn.Module):
    """pixels uint8 [N, H, W, 3] to the selected hidden states, float32 [N, patches, width]."""

    def __init__(
        self,
        model: PreTrainedModel,
        normalization: Normalization,
        layers: tuple[int, ...],
        drops_class_token: bool,
    ):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)
        self.layers = layers
        self.drops_class_token = drops_class_token

    def forward(self, pixels: Tensor) -> Any:
        return self.features(self.hidden_states(pixels))

    def hidden_states(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The tower's, [N, places, width] each: its embeddings, and what each layer gives."""
        states: tuple[Tensor, ...] = self.model.model.vision_tower(
            self.normalize(pixels.permute(0, 3, 1, 2)), output_hidden_states=True
        ).hidden_states
        return states

    def features(self, hidden: tuple[Tensor, ...]) -> Tensor:
        """The selected ones, side by side."""
        selected = [hidden[layer] for layer in self.layers]
        if self.drops_class_token:
            selected = [states[:, 1:] for states in selected]
        return torch.cat(selected, dim=-1) if len(selected) > 1 else selected[0]


class ScoringEncoder(VisionEncoder):
    """The same, and float32 [N, tokens]: the attention that each token gets in the last layer that the features have
    gone through."""

    def __init__(
        self,
        model: PreTrainedModel,
        normalization: Normalization,
        layers: tuple[int, ...],
        drops_class_token: bool,
        layer: str,
        queries: int | None,
        scores: Callable[[Tensor], Tensor],
    ):
        """`layer`: that layer's path in the model; `queries`: how many of the first places are asked what they attend
        to, None for all; `scores`: what is made of the attention [N, heads, queries, places]."""
        super().__init__(model, normalization, layers, drops_class_token)
        self.layer, self.queries, self.scores = layer, queries, scores

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden_states(pixels)
        layer: Any = self.model.get_submodule(self.layer)
        attention, x = layer.self_attn, layer.layer_norm1(hidden[deepest(self.model.config) - 1])
        parts = (attention.q_proj(x), attention.k_proj(x))  # in the graph they are the layer's own
        queries, keys = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
        weights = (queries[:, :, : self.queries] @ keys.transpose(2, 3) * attention.scale).softmax(-1)
        return self.features(hidden), self.scores(weights)
