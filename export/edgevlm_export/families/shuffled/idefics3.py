"""Idefics3 (Laurencon et al. 2024) and SmolVLM, the first of that name: the network that SmolVLM2 took over."""

from __future__ import annotations

from edgevlm_export.families.shuffled.smolvlm import SmolVLM


class Idefics3(SmolVLM):
    """`Idefics3ForConditionalGeneration`."""

    model_type = "idefics3"


FAMILY = Idefics3
