"""Random weights, saved as a user would find them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints import skeleton


def randomize(model: PreTrainedModel, seed: int, gain: float = 0.9) -> None:
    """Weights of a size at which answers vary; norms near one.

    A larger `gain` makes every layer count for more against the last token, so that answers repeat themselves less.
    """
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    scale = getattr(model.get_input_embeddings(), "scalar_embed_scale", 1.0)
    wide = 0.15 / scale if tied else 1.0  # a tied head would otherwise only repeat the last token
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * wide if "embed_tokens" in name else noise * gain / fan_in**0.5)
            else:
                parameter.add_(noise * 0.1)


def save(
    folder: Path,
    config: PreTrainedConfig,
    seed: int = 0,
    gain: float = 0.9,
    adjust: Callable[[str, torch.Tensor], object] = lambda name, parameter: None,
    **save_options: Any,
) -> Path:
    """Random weights for `config`, saved as safetensors. `seed` and `gain` as for `randomize`; `adjust` is told each
    parameter's name, and each stored buffer's, and may change it in place."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # one-dimensional weights keep part of what the constructor drew
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    randomize(model, seed, gain)
    with torch.no_grad():
        for name, parameter in (*model.named_parameters(), *skeleton.stored_buffers(model).items()):
            adjust(name, parameter)
    model.save_pretrained(folder, **save_options)
    return folder


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
