"""By how different the tokens are: DivPrune (Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning for
Large Multimodal Models"), the greedy solution of the max-min diversity problem over cosine distances.

The first token is the one whose nearest other is furthest away; each next one is that with the largest distance to
those already taken. The steps follow each other, so the graph has some operators for each token that is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevlm_export.families.choosing.base import Method, ascending, keep

FAR = 4.0
"""More than any cosine distance."""


def choose(rows: Tensor, scores: Tensor | None, number: int) -> Tensor:
    """Places of `number` tokens that are far from each other."""
    unit = nn.functional.normalize(rows, dim=-1)
    distances = 1 - unit @ unit.transpose(1, 2)
    apart = distances + FAR * torch.eye(rows.shape[1])
    place = apart.amin(-1).argmax(-1, keepdim=True)
    nearest, taken = torch.full_like(apart[:, 0], FAR), [place]
    columns = torch.arange(rows.shape[1])
    for _ in range(number - 1):
        nearest = torch.minimum(nearest, keep(distances, place)[:, 0])
        nearest = torch.where(columns == place, -FAR, nearest)  # what is taken is not taken again
        place = nearest.argmax(-1, keepdim=True)
        taken.append(place)
    return ascending(torch.cat(taken, dim=-1))


METHOD = Method(choose)
