"""PaliGemma (Beyer et al. 2024) and PaliGemma 2 (Steiner et al. 2024): a SigLIP tower, one linear projection, Gemma.

A prefix language model: all tokens of a prompt see each other, in every layer, whatever its window. Published usage has
no chat: a text about an image, which transformers' own processor turns into a prompt.

transformers counts PaliGemma's positions from 1, the runtime from 0: a rotary embedding tells distances alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.masking_utils import create_masks_for_generate

from edgevlm_export.families.base import Family
from edgevlm_export.families.gemma3 import siglip_encoder
from edgevlm_export.families.llava import Projector
from edgevlm_export.graphs.source import GraphSource, Port


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`."""

    model_type = "paligemma"
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
    def text_model(self) -> nn.Module:
        text_model: nn.Module = self.model.model.language_model
        return text_model

    @property
    def logit_cap(self) -> float | None:
        cap: float | None = getattr(self.text_config, "final_logit_softcapping", None)
        return cap

    def vision_encoder(self) -> GraphSource:
        return siglip_encoder(self)

    def projector(self) -> GraphSource:
        vision = self.config.vision_config
        patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("images", patches, vision.hidden_size)),),
            outputs=("image_embeddings",),
            sizes={"images": 2},
        )

    def block_masks(self, embeddings: Tensor, blocks: Tensor) -> Any:
        return create_masks_for_generate(
            config=self.text_config,
            inputs_embeds=embeddings,
            attention_mask=None,
            past_key_values=None,
            position_ids=None,
            block_sequence_ids=blocks,
        )


FAMILY = PaliGemma
