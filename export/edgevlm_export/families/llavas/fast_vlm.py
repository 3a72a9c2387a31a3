"""FastVLM (Vasu et al. 2024): FastViTHD, convolutions with attention in the last stages, and few image tokens.

The tower is timm's, which transformers takes with torchvision alone: the extra `fast-vlm` of the exporter.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.families.llavas.llava import Llava, check_tower, project_fixed
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, over_pixels
from edgevlm_runtime.errors import CheckpointError


class FastVLM(Llava):
    """`FastVlmForConditionalGeneration`."""

    model_type = "fast_vlm"
    image_kind = "fixed"

    @classmethod
    def resizes(cls, config: PreTrainedConfig) -> bool:
        return False  # convolutions, without a table of positions

    @classmethod
    def choices(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        return "diverse", "random"

    @property
    def feature_width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def patches(self) -> int:
        """Places of the last stage, which are image tokens."""
        reduction = int(self.model.model.vision_tower.timm_model.feature_info[-1]["reduction"])
        return -(-int(self.image_options["height"]) // reduction) * -(-int(self.image_options["width"]) // reduction)

    def vision_encoder(self) -> GraphSource:
        check_tower(self.config.vision_config, {"timm_wrapper"})
        if self.patches != self.image_options["tokens"]:
            raise CheckpointError(
                f"processor and model do not belong together: the processor counts {self.image_options['tokens']} "
                f"tokens for an image, the model makes {self.patches}: see patch_size in processor_config.json"
            )
        height, width = self.image_options["height"], self.image_options["width"]
        return over_pixels(VisionEncoder(self.model, self.normalization), height, width)

    def projector(self) -> GraphSource:
        return project_fixed(self)


class VisionEncoder(nn.Module):
    """pixels uint8 [N, H, W, 3] to the places of the last stage, row by row, float32 [N, places, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=2)

    def forward(self, pixels: Tensor) -> Tensor:
        tower = self.model.model.vision_tower.timm_model
        features: Tensor = tower.forward_features(self.normalize(pixels.permute(0, 3, 1, 2)))
        return features.flatten(2).transpose(1, 2)


FAMILY = FastVLM
