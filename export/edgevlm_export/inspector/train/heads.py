"""Auxiliary heads over the vision tower's patches; they are thrown away with the training state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevlm_export.inspection.glyphs import CHARACTERS
from edgevlm_export.inspection.parts import DEFECTS, MOST_FIXTURES
from edgevlm_export.inspector.train.model import WIDTH
from edgevlm_export.inspector.train.targets import COLOUR_NAMES, LOCATION_NAMES, MAPS, OFF_PLATE

POOLED = {"defect": len(DEFECTS) + 1, "location": len(LOCATION_NAMES) + 1}
"""Heads that look where they like, and their classes."""
COUNTED = {"holes": MOST_FIXTURES + 1, "screws": MOST_FIXTURES + 1, "colour": len(COLOUR_NAMES)}
"""Heads that see the mean over all patches."""


class Heads(nn.Module):
    """``[B, 144, 128]`` patches to losses by name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.maps = nn.Linear(WIDTH, MAPS)
        self.cells = nn.Linear(WIDTH, OFF_PLATE + 1)
        self.glyphs = nn.Linear(WIDTH, len(CHARACTERS) + 1)
        self.queries = nn.Parameter(torch.randn(len(POOLED) + 3, WIDTH) / WIDTH**0.5)
        self.pooled = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in POOLED.items()})
        self.characters = nn.Linear(WIDTH, len(CHARACTERS) + 1)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.counted = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in COUNTED.items()})

    def forward(self, patches: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        seen = self.norm(patches)
        losses = self._dense(seen, truth)
        weights = (self.queries @ seen.transpose(1, 2)).softmax(dim=-1)  # [B, queries, 144]
        looked = weights @ seen  # [B, queries, 128]
        for index, name in enumerate(POOLED):
            losses[name] = F.cross_entropy(self.pooled[name](looked[:, index]).float(), truth[name])
        spelled = self.characters(looked[:, len(POOLED) :]).float()  # [B, 3, 29]
        losses["characters"] = F.cross_entropy(spelled.flatten(0, 1), truth["characters"].flatten())
        mean = F.gelu(self.hidden(seen)).mean(dim=1)
        for name in COUNTED:
            losses[name] = F.cross_entropy(self.counted[name](mean).float(), truth[name])
        return losses

    def _dense(self, seen: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses per patch. What is rare (a marked patch, a character) weighs more."""
        maps = self.maps(seen).float().transpose(1, 2)  # [B, 8, 144]
        marked = truth["maps"].flatten(2)
        glyphs = truth["glyphs"].flatten()
        by_glyph = F.cross_entropy(self.glyphs(seen).float().flatten(0, 1), glyphs, reduction="none")
        printed = (glyphs < len(CHARACTERS)).float()
        return {
            "maps": 20 * F.binary_cross_entropy_with_logits(maps, marked, pos_weight=torch.tensor(5.0)),
            "cells": F.cross_entropy(self.cells(seen).float().flatten(0, 1), truth["cells"].flatten()),
            "glyphs": (by_glyph * printed).sum() / (printed.sum() + 1) + 3 * by_glyph.mean(),
        }
