"""A company's own model, exported without a fork of edgevlm: a LLaVA whose projector ends in a norm, under a
`model_type` of its own. `pip install` this package, then `edgevlm export FOLDER`.
"""

from __future__ import annotations

from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from edgevlm_export.families.llavas.llava import Llava


class AcmeConfig(LlavaConfig):
    model_type = "acme_vlm"


class AcmeModel(LlavaForConditionalGeneration):
    config_class = AcmeConfig

    def __init__(self, config: AcmeConfig):
        super().__init__(config)
        projector = self.model.multi_modal_projector
        projector.linear_2 = nn.Sequential(projector.linear_2, nn.LayerNorm(config.text_config.hidden_size))


AutoConfig.register("acme_vlm", AcmeConfig)
AutoModelForImageTextToText.register(AcmeConfig, AcmeModel)


class Acme(Llava):
    """Which submodules make the graphs is as for LLaVA; what differs would be said here (see `Family`)."""

    model_type = "acme_vlm"
