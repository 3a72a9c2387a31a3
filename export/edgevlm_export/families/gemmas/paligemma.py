"""PaliGemma (Beyer et al. 2024) and PaliGemma 2 (Steiner et al. 2024): a SigLIP tower, one linear projection, Gemma.

A prefix language model: all tokens of a prompt see each other, in every layer, whatever its window. Published usage has
no chat: a text about an image, which transformers' own processor turns into a prompt.

transformers counts PaliGemma's positions from 1, the runtime from 0: a rotary embedding tells distances alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.masking_utils import create_masks_for_generate

from edgevlm_export.families.base import Family
from edgevlm_export.families.blocks import masks
from edgevlm_export.families.gemmas.gemma3 import siglip_encoder, siglip_projector
from edgevlm_export.graphs.source import GraphSource


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`."""

    model_type = "paligemma"
    image_kind = "fixed"
    projector_module = "model.multi_modal_projector"
    attention = "prefix"
    plain_prompts = True

    @classmethod
    def published_template(cls, config: PreTrainedConfig) -> str | None:
        return "paligemma"

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        tokenizer.add_bos_token = tokenizer.add_eos_token = False
        return tokenizer

    @property
    def logit_cap(self) -> float | None:
        cap: float | None = getattr(self.text_config, "final_logit_softcapping", None)
        return cap

    def vision_encoder(self) -> GraphSource:
        return siglip_encoder(self)

    def projector(self) -> GraphSource:
        return siglip_projector(self)

    def block_masks(self, embeddings: Tensor, blocks: Tensor) -> Any:
        return masks(create_masks_for_generate, self.text_config, embeddings, blocks)


FAMILY = PaliGemma
