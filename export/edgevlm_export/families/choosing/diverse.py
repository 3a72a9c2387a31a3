"""By how different the tokens are: DivPrune (Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning for
Large Multimodal Models"), the greedy solution of the max-min diversity problem over cosine distances.

The first token is the one whose nearest other is furthest away; each next one is that with the largest distance to
those already taken. The steps follow each other, so the graph has some operators for each token that is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevlm_export.families.choosing.base import Method, ascending

FAR = 4.0
"""More than any cosine distance."""


def choose(rows: Tensor, scores: Tensor | None, number: int) -> Tensor:
    """Places of `number` tokens that are far from each other."""
    images, tokens = rows.shape[:2]
    unit = nn.functional.normalize(rows, dim=-1)
    distances, itself = 1 - unit @ unit.transpose(1, 2), FAR * torch.eye(tokens)
    place = (distances + itself).amin(-1).argmax(-1)
    left = (distances - itself).reshape(-1, tokens)  # what is taken is nearer to itself than anything, and stays so
    first = torch.arange(images) * tokens
    nearest, taken = left.index_select(0, first + place), [place]
    for _ in range(number - 1):
        place = nearest.argmax(-1)
        taken.append(place)
        nearest = torch.minimum(nearest, left.index_select(0, first + place))
    return ascending(torch.stack(taken, dim=-1))


METHOD = Method(choose)
