"""Parameters that share one tensor, as the config says and as the checkpoint has it.

transformers ties what the config ties, unless both are stored and differ: then what is stored counts (a merged adapter
that trained table and head, say). Of tied parameters of which some are stored, the others take the first of those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from edgevlm_export.checkpoints.weights.shards import Weight


def tied_weights(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that share one tensor: name to the name of the owner."""
    return dict(model.all_tied_weights_keys or {})


def untie(model: PreTrainedModel, tied: str) -> None:
    """Make a tied parameter of a skeleton one of its own."""
    module, _, name = tied.rpartition(".")
    parameter = model.get_parameter(tied)
    setattr(model.get_submodule(module), name, nn.Parameter(torch.empty_like(parameter), requires_grad=False))
    model.all_tied_weights_keys.pop(tied)


def settle(model: PreTrainedModel, tensors: dict[str, Weight]) -> tuple[str, ...]:
    """Give every tied parameter its tensor; untie, and return, those that are stored with values of their own."""
    apart: list[str] = []
    groups: dict[str, list[str]] = {}
    for tied, owner in tied_weights(model).items():
        groups.setdefault(owner, [owner]).append(tied)
    for names in groups.values():
        stored = [name for name in names if name in tensors]
        for name in names if stored else ():
            tensors.setdefault(name, tensors[stored[0]])
        for tied in names[1:]:
            if tied in stored[1:] and not _equal(tensors[tied], tensors[stored[0]]):
                untie(model, tied)
                apart.append(tied)
    return tuple(apart)


def _equal(one: Weight, other: Weight) -> bool:
    """Of shape and values, a part of the rows at a time."""
    if one.place == other.place:
        return one.shape == other.shape
    if one.shape != other.shape:
        return False
    return all(torch.equal(one.rows(*part).float(), other.rows(*part).float()) for part in _parts(one.shape))


def _parts(shape: Sequence[int], rows: int = 4096) -> list[tuple[int, int]]:
    return [(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]
