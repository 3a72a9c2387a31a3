"""LLaVA-OneVision (Li et al. 2024): LLaVA-NeXT whose lines are interpolated where there are too many; images only.

Each of several images is cut into tiles, as transformers does with images that come in a flat list.
"""

from __future__ import annotations

from edgevlm_export.families.llavas.llava_next import LlavaNext


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`."""

    model_type = "llava_onevision"


FAMILY = LlavaOnevision
