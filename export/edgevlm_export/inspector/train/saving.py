"""The checkpoint: float16 weights, tokenizer, chat template, processor, generation settings; for ``transformers``."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from edgevlm_export.inspection.parts import SIZE as IMAGE_SIZE
from edgevlm_export.inspector.train import vocabulary
from edgevlm_export.inspector.train.model import PATCH


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Pictures are resized to 96 pixels and mapped to -1..1; other sizes are centre-cropped as CLIP does."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the CLS token, which "default" drops again
        image_token=vocabulary.IMAGE,
        chat_template=vocabulary.CHAT_TEMPLATE,
    )


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read
