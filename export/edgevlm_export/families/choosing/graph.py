"""The projector's graph of an export with fewer image tokens: the projector, and the choice behind it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgevlm_export.families.choosing import get_method
from edgevlm_export.families.choosing.base import keep
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_runtime.bundle.manifest import FewerTokens

SCORES = "image_scores"
"""What a vision encoder gives beside the features where the method goes by scores: float32 [images, tokens]."""


class Chosen(nn.Module):
    """What a projector's module makes of its inputs, [images, tokens, width], without the rows that are left out."""

    def __init__(self, projector: nn.Module, fewer: FewerTokens):
        super().__init__()
        self.model = projector.model
        self.project = projector.forward  # no submodule: parameters have the model's names
        self.fewer = fewer

    def forward(self, *inputs: Tensor) -> Tensor:
        method = get_method(self.fewer.method)
        features, scores = (inputs[:-1], inputs[-1]) if method.scored else (inputs, None)
        rows = self.project(*features)
        return keep(rows, method.choose(rows, scores, self.fewer.kept))


def fewer_rows(source: GraphSource, fewer: FewerTokens) -> GraphSource:
    """`source`, a projector's graph, with `fewer.kept` rows for each image; of images whose number of features is
    free, it is as many as there are tokens."""
    first, *others = source.inputs
    count, features, *width = first.shape
    if isinstance(features, str):
        first = replace(first, shape=(count, fewer.of, *width))
    scores = (Port(SCORES, torch.float32, (count, fewer.of)),) if get_method(fewer.method).scored else ()
    return replace(
        source,
        module=Chosen(source.module, fewer),
        inputs=(first, *others, *scores),
        sizes={name: size for name, size in source.sizes.items() if name != features},
        ranges={name: sizes for name, sizes in source.ranges.items() if name != features},
    )
