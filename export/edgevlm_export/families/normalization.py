"""The step from a picture's bytes to a tower's numbers, at the beginning of every vision encoder's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgevlm_export.finite import is_finite
from edgevlm_runtime.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Normalization:
    """(pixel * rescale - mean) / std per colour channel, folded into the vision encoder's graph."""

    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> Normalization:
        """Read it off a Hugging Face image processor, steps switched off included.

        Raises `CheckpointError` for figures that mean nothing.
        """
        rescale = processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
        made = cls(float(rescale), _channels(mean), _channels(std))
        if not is_finite(torch.tensor([made.rescale, *made.mean, *made.std], dtype=torch.float64)) or 0 in made.std:
            raise CheckpointError(
                f"image processor not usable: rescale_factor {rescale}, image_mean {mean}, image_std {std}: take "
                "preprocessor_config.json from the original checkpoint"
            )
        return made


def _channels(value: Any) -> tuple[float, ...]:
    """A figure for each colour; one for all, as transformers takes it, is given three times."""
    values = [value] * 3 if isinstance(value, int | float) else list(value or ())
    if len(values) != 3:
        raise CheckpointError(f"image processor not usable: {value} for three colours in image_mean or image_std")
    return tuple(float(one) for one in values)


class Normalize(nn.Module):
    """uint8 [..., C, *pixels] to float32, as the Hugging Face processors do; `axes` pixel axes follow the channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, values: Normalization, axes: int):
        super().__init__()
        self.rescale = values.rescale
        self.register_buffer("mean", torch.tensor(values.mean).view(-1, *[1] * axes))
        self.register_buffer("std", torch.tensor(values.std).view(-1, *[1] * axes))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) * self.rescale - self.mean) / self.std
