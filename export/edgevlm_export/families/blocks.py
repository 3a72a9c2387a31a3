"""Which tokens of a batch see later ones, for PyTorch: what `edgevlm_runtime.decoding.attention` says of one prompt.

A block's number at each of its tokens, -1 elsewhere, int64 [B, S]; transformers calls it `block_sequence_ids`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig


def of_images(images: Tensor, asked: Tensor) -> Tensor:
    """Each run of image tokens is a block."""
    before = torch.nn.functional.pad(images, (1, 0))[:, :-1]
    return torch.where(images, (images & ~before).cumsum(1) - 1, -1)


def of_prompts(images: Tensor, asked: Tensor) -> Tensor:
    """Each prompt is a block; the answer behind it is not of it."""
    places = torch.arange(images.shape[1])[None]
    return torch.where(places < asked[:, None], 0, -1)


BLOCKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "images": of_images,
    "images_in_windows": of_images,
    "prefix": of_prompts,
}
"""`Family.attention` to the blocks of a batch, by where its image tokens are (bool [B, S]) and how many tokens of each
sequence are a prompt (int64 [B]). None for "causal"."""


def masks(create: Callable[..., Any], config: PreTrainedConfig, embeddings: Tensor, blocks: Tensor) -> Any:
    """The masks that `create`, transformers' own for a class of models, makes of a batch without a cache or padding."""
    return create(
        config=config,
        inputs_embeds=embeddings,
        attention_mask=None,
        past_key_values=None,
        position_ids=None,
        block_sequence_ids=blocks,
    )
