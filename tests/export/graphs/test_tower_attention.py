"""Attention in vision towers: every patch sees every other. What a module asks for beside that is refused, for the
operator would leave it out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaConfig, Qwen2Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgevlm_export.checkpoints import skeleton
from edgevlm_export.families.llavas.llava import Llava
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.graphs.neutral import IMPLEMENTATION
from edgevlm_export.planning.graph_plan import plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_runtime.errors import UnsupportedModel


@pytest.mark.parametrize(
    ("kv_heads", "asked", "words"),
    [
        (4, {"sliding_window": 8}, "within a window of 8"),
        (4, {"softcap": 50.0}, "under a soft cap of 50.0"),
        (2, {}, "with 2 heads of keys for 4 of queries"),
    ],
)
def test_what_a_module_may_not_ask_for(kv_heads: int, asked: dict[str, Any], words: str) -> None:
    q, kv = torch.zeros(1, 4, 6, 8), torch.zeros(1, kv_heads, 6, 8)
    with pytest.raises(UnsupportedModel, match=f"Module attends {words}"):
        ALL_ATTENTION_FUNCTIONS[IMPLEMENTATION](torch.nn.Module(), q, kv, kv, None, **asked)


def test_a_causal_tower() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=28, patch_size=14),
        text_config=Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=99),
        vision_feature_layer=-1,
        image_token_index=7,
    )
    options = {"height": 28, "width": 28}
    family = Llava(skeleton.build(config), Normalization(1 / 255, (0.5,) * 3, (0.5,) * 3), options, context=64)
    for module in family.model.model.vision_tower.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = True
    with pytest.raises(UnsupportedModel, match="CLIPAttention attends in one direction"):
        plan_graph("vision_encoder", family.vision_encoder(), family.model, GraphPrecision("fp32"))
