"""transformers' own model with another image size, or with fewer image tokens, than its checkpoint has.

The model's code is not touched: hooks ask its tower to interpolate, and leave out rows of what its projector gives. The
attention that scores go by is what transformers' eager attention returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from edgevlm_export.checkpoints.weights.interpolated import tables
from edgevlm_export.families import get_family
from edgevlm_export.families.choosing import get_method
from edgevlm_export.families.choosing.base import keep
from edgevlm_runtime.bundle.manifest import FewerTokens, ImageProcessing

OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
Inputs = dict[str, Tensor]


def interpolate(model: Any) -> None:
    """Have the vision tower of `model` interpolate its table of positions, whatever it is called with."""
    for module in tables(model).values():
        module.register_forward_pre_hook(_interpolating, with_kwargs=True)


def _interpolating(
    module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, {**named, "interpolate_pos_encoding": True}


def as_asked(model: Any, images: ImageProcessing | None) -> Choosing | None:
    """Have `model` take pictures of another size and leave out image tokens where a bundle's `images` do; what leaves
    them out."""
    if images is not None and images.size is not None:
        interpolate(model)
    return None if images is None or images.fewer is None else Choosing(model, images.fewer)


def whole(choosing: Choosing | None) -> AbstractContextManager[None]:
    """Within, nothing is left out."""
    return nullcontext() if choosing is None else choosing.whole()


class Choosing:
    """Has a model leave out image tokens from now on."""

    def __init__(self, model: Any, fewer: FewerTokens) -> None:
        family = get_family(model.config.model_type)
        self.fewer, self.family, self.config = fewer, family, model.config
        self.method = get_method(fewer.method)
        self._here = threading.local()
        self._whole = False
        model.get_submodule(family.projector_module).register_forward_hook(self._choose)
        if self.method.scored:
            layer = model.get_submodule(family.scoring_layer(model.config))
            layer.self_attn.config._attn_implementation = "eager"  # the tower's: others return no attention
            layer.self_attn.register_forward_hook(self._see)

    @property
    def places(self) -> Tensor:
        """Int64 [images, kept]: what was kept of the images that were seen last in this thread."""
        found: Tensor = self._here.places
        return found

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within, the model leaves all rows as they are, and `places` tells what it would have kept."""
        self._whole = True
        try:
            yield
        finally:
            self._whole = False

    def inputs(self, inputs: Inputs) -> Inputs:
        """A prompt without the tokens that have no rows any more: of each image's, as many as are kept."""
        images = inputs["input_ids"][0] == self.config.image_token_id
        number = (images.cumsum(0) - 1) % self.fewer.of
        kept = ~images | (number < self.fewer.kept)
        return {name: value[:, kept] if name in OF_TOKENS else value for name, value in inputs.items()}

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        self._here.scores = self.family.scores(self.config, output[1].float())

    @torch.no_grad()
    def _choose(self, module: nn.Module, inputs: tuple[Any, ...], rows: Tensor) -> Tensor | None:
        scores = self._here.scores if self.method.scored else None
        self._here.places = self.method.choose(rows, scores, self.fewer.kept).expand(rows.shape[0], -1)
        return None if self._whole else keep(rows, self._here.places)
