"""ViP-LLaVA (Cai et al. 2024): LLaVA with features of several layers of its tower, normed together by its projector."""

from __future__ import annotations

from transformers import PreTrainedConfig

from edgevlm_export.families.llavas.llava import Llava


class VipLlava(Llava):
    """`VipLlavaForConditionalGeneration`."""

    model_type = "vipllava"
    image_kind = "fixed"

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return None  # every published checkpoint has one

    @classmethod
    def drops_first(cls, config: PreTrainedConfig) -> bool:
        return True


FAMILY = VipLlava
