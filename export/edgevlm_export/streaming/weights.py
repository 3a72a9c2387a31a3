"""Where a streamed model's weights come from: whatever has these methods; the checkpoint as an export reads it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.graphs.transforms.edits import Edits


class Weights(Protocol):
    """Parameters by the names that transformers gives them; none stays in memory."""

    def read(self, name: str) -> Tensor:
        """A parameter, in any floating-point type."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """[stop - start, ...]: a part of a parameter along its first dimension, in float32."""

    def parts(self, name: str, rows: int) -> Iterator[Tensor]:
        """All of a parameter, `rows` rows at a time, in float32."""


@dataclass(frozen=True, slots=True)
class PlannedWeights:
    """The checkpoint's, as the transforms of a planned decoder change them."""

    stored: WeightSource
    edits: Edits
    model: PreTrainedModel
    unchanged: frozenset[str]
    """Parameters that are read as they are stored."""

    def read(self, name: str) -> Tensor:
        """See `Weights`; zeros for one that the checkpoint lacks, which no graph reads (`check_weights`)."""
        if name not in self.stored:
            return torch.zeros(self.model.get_parameter(name).shape)
        return self.stored.read(name) if name in self.unchanged else self.edits.read(self.stored, name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """See `Weights`."""
        if name in self.edits.by_name:
            return self.read(name)[start:stop].float()
        return self.stored.tensors[name].rows(start, stop).float()

    def parts(self, name: str, rows: int) -> Iterator[Tensor]:
        """See `Weights`; an edit may mix rows, so that it is made of all of them."""
        return iter(self.read(name).float().split(rows))
