"""Tiny random checkpoints of the real architectures, saved as a Hugging Face user would find them.

Weights are drawn wide enough that greedy answers vary with image and question. Everything is seeded.
"""

from tests.support.checkpoints.anyres import (
    LLAVA_NEXT_SHAPES,
    LLAVA_ONEVISION_SHAPES,
    llava_next,
    llava_onevision,
)
from tests.support.checkpoints.decoders import DECODERS
from tests.support.checkpoints.fastvlms import FAST_VLM_SHAPES, TIMM, fast_vlm
from tests.support.checkpoints.gemma4s import GEMMA4_SHAPES, gemma4
from tests.support.checkpoints.gemmas import GEMMA3_SHAPES, PALIGEMMA_SHAPES, gemma3, paligemma
from tests.support.checkpoints.internvls import INTERNVL_SHAPES, internvl
from tests.support.checkpoints.lfm2s import LFM2_SHAPES, lfm2_vl
from tests.support.checkpoints.llavas import TOWERS, VIPLLAVA_SHAPES, llava, vipllava
from tests.support.checkpoints.paddleocrs import PADDLEOCR_VL_SHAPES, paddleocr_vl
from tests.support.checkpoints.pixtrals import MISTRAL3_SHAPES, PIXTRAL_SHAPES, mistral3, pixtral
from tests.support.checkpoints.published import LAYOUTS, Layout, published
from tests.support.checkpoints.qwens import (
    QWEN2_VL_SHAPES,
    QWEN3_5_SHAPES,
    QWEN3_VL_SHAPES,
    QWEN_SHAPES,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_vl,
)
from tests.support.checkpoints.smolvlms import SMOLVLM_SHAPES, idefics3, smolvlm
from tests.support.checkpoints.weights import randomize, save
from tests.support.checkpoints.words import CHAT_TEMPLATE, SPECIAL, tokenizer

__all__ = [
    "CHAT_TEMPLATE",
    "DECODERS",
    "FAST_VLM_SHAPES",
    "GEMMA3_SHAPES",
    "GEMMA4_SHAPES",
    "INTERNVL_SHAPES",
    "LAYOUTS",
    "LFM2_SHAPES",
    "LLAVA_NEXT_SHAPES",
    "LLAVA_ONEVISION_SHAPES",
    "MISTRAL3_SHAPES",
    "PADDLEOCR_VL_SHAPES",
    "PALIGEMMA_SHAPES",
    "PIXTRAL_SHAPES",
    "QWEN2_VL_SHAPES",
    "QWEN3_5_SHAPES",
    "QWEN3_VL_SHAPES",
    "QWEN_SHAPES",
    "SMOLVLM_SHAPES",
    "SPECIAL",
    "TIMM",
    "TOWERS",
    "VIPLLAVA_SHAPES",
    "Layout",
    "fast_vlm",
    "gemma3",
    "gemma4",
    "idefics3",
    "internvl",
    "lfm2_vl",
    "llava",
    "llava_next",
    "llava_onevision",
    "mistral3",
    "paddleocr_vl",
    "paligemma",
    "pixtral",
    "published",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_vl",
    "randomize",
    "save",
    "smolvlm",
    "tokenizer",
    "vipllava",
]
