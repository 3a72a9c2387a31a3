"""At random, the same places for every image: what a method has to be better than."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgevlm_export.families.choosing.base import Method

SEED = 20_241


def places(of: int, number: int, seed: int = SEED) -> list[int]:
    """`number` of `of` places, ascending."""
    drawn: list[int] = sorted(np.random.default_rng(seed).permutation(of)[:number].tolist())
    return drawn


def choose(rows: Tensor, scores: Tensor | None, number: int) -> Tensor:
    """Drawn once, with a fixed seed."""
    return torch.tensor([places(int(rows.shape[1]), number)])


METHOD = Method(choose)
