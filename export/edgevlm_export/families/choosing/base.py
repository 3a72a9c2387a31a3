"""What every method of choosing image tokens is, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Choose = Callable[[Tensor, Tensor | None, int], Tensor]
"""From rows [B, P, width], scores [B, P] where the method has any, and a number to the places that are kept, int64
[B, number], ascending, or [1, number] where they are the same for every image."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to choose."""

    choose: Choose
    scored: bool = False
    """Whether it goes by scores, which the vision encoder has to give."""


def highest(scores: Tensor, number: int) -> Tensor:
    """Places of the highest scores [B, P], ascending, int64 [B, number]."""
    return ascending(scores.topk(number, dim=-1).indices)


def ascending(places: Tensor) -> Tensor:
    """Places [B, number] in order. By TopK of numbers that every engine has it for: float32 is exact to 2^24."""
    number = places.shape[-1]
    negative = places.to(torch.float32).neg()
    return negative.topk(number, dim=-1).values.neg().to(torch.int64)


def keep(rows: Tensor, places: Tensor) -> Tensor:
    """The rows [B, P, width] at `places` [B, number]."""
    return rows.gather(1, places[..., None].expand(rows.shape[0], -1, rows.shape[-1]))
