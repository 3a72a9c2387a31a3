"""The architecture of `inspector` and its starting weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from edgevlm_export.inspection.parts import SIZE as IMAGE_SIZE
from edgevlm_export.inspector.train import vocabulary

PATCH = 8
GRID = IMAGE_SIZE // PATCH
"""Patches along each side: 12, so an image is 144 tokens."""
WIDTH = 128
VISION_LAYERS, TEXT_LAYERS = 6, 4


def config() -> LlavaConfig:
    """A CLIP tower, the LLaVA projector and a Llama decoder, all 128 wide."""
    special = {name: index for index, name in enumerate(vocabulary.SPECIALS)}
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=VISION_LAYERS,
            num_attention_heads=4,
            projection_dim=WIDTH,
            hidden_act="gelu",
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary.SIZE,
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=special[vocabulary.BOS],
            eos_token_id=special[vocabulary.EOS],
            pad_token_id=special[vocabulary.PAD],
        ),
        image_token_id=special[vocabulary.IMAGE],
        image_seq_length=GRID * GRID,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        bos_token_id=special[vocabulary.BOS],
        eos_token_id=special[vocabulary.EOS],
        pad_token_id=special[vocabulary.PAD],
    )


def build() -> LlavaForConditionalGeneration:
    """A model with starting weights; seed torch first."""
    model = LlavaForConditionalGeneration(config())
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=96,  # a record takes 76 at most
        bos_token_id=model.config.text_config.bos_token_id,
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                _start(name, parameter)
        vision = model.model.vision_tower.embeddings.position_embedding.weight
        vision[1:] = 0.5 * positions()
    return model


def _start(name: str, weight: nn.Parameter) -> None:
    """Normal with 0.8 / sqrt(fan in); what writes to the residual stream is scaled down by the depth."""
    fan_in = weight[0].numel() if "embed" not in name or "patch" in name else WIDTH
    std = 0.8 / math.sqrt(fan_in)
    if name.endswith(("out_proj.weight", "fc2.weight")):
        std /= math.sqrt(2 * VISION_LAYERS)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        std /= math.sqrt(2 * TEXT_LAYERS)
    nn.init.normal_(weight, std=std)


def positions() -> torch.Tensor:
    """``[144, 128]`` sines and cosines of each patch's row and column, a head start in knowing where things are."""
    quarter = WIDTH // 4
    frequencies = 100.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(GRID)[:, None] * frequencies  # [12, 32]
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [12, 64]
    rows = waves[:, None, :].expand(GRID, GRID, -1)
    columns = waves[None, :, :].expand(GRID, GRID, -1)
    return torch.cat([rows, columns], dim=2).reshape(GRID * GRID, WIDTH)
