"""LLaVA (Liu et al. 2023): a CLIP or SigLIP tower, a two-layer projector, any text decoder."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.base import Family, Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel

PUBLISHED = {
    "lmsys/vicuna-7b-v1.5": "llava-1.5",
    "lmsys/vicuna-13b-v1.5": "llava-1.5",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llava-llama3",
}
"""Language model, as the text config names it, to the chat template it was made a LLaVA with."""
TOWERS = frozenset({"clip_vision_model", "siglip_vision_model"})


class Llava(Family):
    """`LlavaForConditionalGeneration`."""

    model_type = "llava"
    projector_module = "model.multi_modal_projector"
    after_image = "\n"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return PUBLISHED.get(str(getattr(config.get_text_config(), "_name_or_path", "")))

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states of the tower that make the features; 0 is the embeddings, negative ones count from the end."""
        layers = self.config.vision_feature_layer
        return (layers,) if isinstance(layers, int) else tuple(layers)

    @property
    def drops_class_token(self) -> bool:
        """Whether the projector gets the tower's features without the first of an image."""
        return bool(self.config.vision_feature_select_strategy == "default")

    @property
    def feature_width(self) -> int:
        """Channels of the vision features: those of every selected layer, side by side."""
        return int(self.config.vision_config.hidden_size) * len(self.layers)

    def vision_encoder(self) -> GraphSource:
        check_tower(self.config.vision_config, TOWERS)
        depth = int(self.config.vision_config.num_hidden_layers)
        if not self.layers or any(not -depth - 1 <= layer <= depth for layer in self.layers):
            raise CheckpointError(f"vision_feature_layer {list(self.layers)} is not in a tower of {depth} layers")
        height, width = self.image_size
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization, self.layers, self.drops_class_token),
            inputs=(Port("pixels", torch.uint8, ("images", height, width, 3)),),
            outputs=("image_features",),
            sizes={"images": 2},
        )

    def projector(self) -> GraphSource:
        return GraphSource(
            module=self.projector_part,
            inputs=(Port("image_features", torch.float32, ("images", "patches", self.feature_width)),),
            outputs=("image_embeddings",),
            sizes={"images": 2, "patches": 5},
            ranges={"patches": (1, self.patches, self.patches)},
        )

    @property
    def projector_part(self) -> nn.Module:
        """What the projector's graph computes, from features to embeddings."""
        return Projector(self.model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what the tower takes."""
        return int(self.image_options["height"]), int(self.image_options["width"])

    @property
    def patches(self) -> int:
        """Vision features of one image, the class token included."""
        side = int(self.config.vision_config.patch_size)
        height, width = self.image_size
        return (height // side) * (width // side) + 1


def check_tower(config: PreTrainedConfig, supported: AbstractSet[str]) -> None:
    """Raise `UnsupportedModel` for a vision tower whose `model_type` is not among those `supported`."""
    if config.model_type not in supported:
        raise UnsupportedModel(
            f"vision tower not supported: {config.model_type}: supported are {', '.join(sorted(supported))}"
        )


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

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.model.model.vision_tower(
            self.normalize(pixels.permute(0, 3, 1, 2)), output_hidden_states=True
        ).hidden_states
        selected = [hidden[layer] for layer in self.layers]
        if self.drops_class_token:
            selected = [states[:, 1:] for states in selected]
        return torch.cat(selected, dim=-1) if len(selected) > 1 else selected[0]


class Projector(nn.Module):
    """The multi-modal projector alone."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings: Tensor = self.model.model.multi_modal_projector(image_features)
        return embeddings


FAMILY = Llava
