"""Are the weights that an export reads those that transformers loads from the checkpoint?

The two read by different code: the exporter's source (`checkpoints`) tensor by tensor, the reference by
`from_pretrained`. Weights of the wrong file are found here by the names of their tensors, before any graph runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.checkpoints.weights.interpolated import Interpolated
from edgevlm_export.reference import AnyReference
from edgevlm_runtime.bundle.certificate import WEIGHTS, Miss

SHOWN = 3
"""Tensors that are named; of further ones there is the number."""


def other_weights(weights: WeightSource, reference: AnyReference) -> Iterator[Miss]:
    """A miss for the first tensors that differ. Of each tensor the first, the middle and the last row are compared:
    training changes all of them, and another row's place would change these too."""
    differ = [name for name in _common(weights, reference) if not _same(name, weights, reference)]
    for name in differ[:SHOWN]:
        yield Miss(WEIGHTS, name, figure=len(differ))


def _common(weights: WeightSource, reference: AnyReference) -> Iterator[str]:
    """Parameters of the model that are stored. What is not stored is no part of a bundle (`check_weights`)."""
    for name, _ in reference.model.named_parameters(remove_duplicate=False):
        if name in weights:
            yield name


def _same(name: str, weights: WeightSource, reference: AnyReference) -> bool:
    stored = weights.tensors[name]
    if isinstance(stored, Interpolated):  # transformers interpolates when it runs
        stored = stored.stored
    rows = stored.shape[0] if stored.shape else 0
    return all(
        torch.equal(stored.rows(row, row + 1).float(), reference.weight_rows(name, row, row + 1))
        for row in sorted({0, rows // 2, rows - 1})
        if 0 <= row < rows
    )
