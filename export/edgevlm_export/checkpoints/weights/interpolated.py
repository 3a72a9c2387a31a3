"""A vision tower's table of positions for another image size than the checkpoint's, by transformers' own interpolation.

It is what the tower adds when it is called with `interpolate_pos_encoding=True` on pictures of that size (bicubic, the
class token's position as it is), computed once instead of for every picture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints.weights.shards import Weight

TABLE = "position_embedding"
"""The table's name in the modules that can interpolate it."""
Views = dict[str, Callable[[Weight], Weight]]
"""Parameter names to what is made of the stored weight."""


@dataclass(frozen=True, eq=False)
class Interpolated:
    """A `Weight` that is made of a smaller or a larger table."""

    stored: Weight
    module: type[nn.Module]
    """Class of the tower's embeddings, with transformers' `interpolate_pos_encoding`."""
    config: PreTrainedConfig
    """The tower's, as the checkpoint has it."""
    size: int
    """Side of the pictures, in pixels."""
    shape: tuple[int, int]

    @property
    def path(self) -> Path:
        """See `Weight`."""
        return self.stored.path

    @property
    def name(self) -> str:
        """See `Weight`."""
        return self.stored.name

    @property
    def dtype(self) -> str:
        """Interpolated in float32."""
        return "F32"

    @property
    def place(self) -> Hashable:
        """See `Weight`."""
        return self.stored.place, self.shape

    @torch.no_grad()
    def read(self) -> torch.Tensor:
        """See `Weight`."""
        embeddings: Any = self.module(self.config)
        getattr(embeddings, TABLE).weight = nn.Parameter(self.stored.read().float())
        table: torch.Tensor = embeddings.interpolate_pos_encoding(torch.zeros(1, *self.shape), self.size, self.size)
        return table[0].contiguous()

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """See `Weight`."""
        return self.read()[start:stop]


def tables(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules of a model that can interpolate their table of positions, by the parameter's name."""
    return {
        f"{name}.{TABLE}.weight": module
        for name, module in model.named_modules()
        if hasattr(module, "interpolate_pos_encoding") and isinstance(getattr(module, TABLE, None), nn.Embedding)
    }


def views(model: PreTrainedModel, stored: PreTrainedConfig, size: int | None) -> Views:
    """What becomes of the tables of `model`, a skeleton for pictures of `size` pixels, when they are read from a
    checkpoint with the config `stored`; nothing where no size is asked for."""
    if size is None:
        return {}
    return {name: partial(_interpolated, module, stored.vision_config, size) for name, module in tables(model).items()}


def _interpolated(module: nn.Module, config: PreTrainedConfig, size: int, stored: Weight) -> Weight:
    rows, width = module.get_parameter(f"{TABLE}.weight").shape
    return Interpolated(stored, type(module), config, size, (rows, width))
