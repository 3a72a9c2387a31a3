"""The checkpoint's weights as transformers itself loads them, in hardly any memory of this process.

Nothing here reads a weight file: `from_pretrained` chooses the files, names the parameters and ties them, so that an
error of the exporter's reading cannot hide on both sides of a comparison. A parameter that is loaded in the type that
the file has is a view of the mapped file; its pages are given back after every look at it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from edgevlm_export.checkpoints import checkpoint, door, skeleton
from edgevlm_export.checkpoints.weights.names import Names
from edgevlm_export.checkpoints.weights.shards import DTYPES, StoredTensor
from edgevlm_export.reference.mapped import MappedFiles
from edgevlm_export.reference.memory import common_type, copied_tensors
from edgevlm_runtime.errors import CheckpointError, reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Parameters of a model that transformers loaded, one at a time. `load` makes it."""

    folder: Path
    model: Any
    """transformers' own, each parameter in the type that is stored."""
    _mapped: MappedFiles

    @classmethod
    def load(cls, folder: Path, config: PreTrainedConfig, architecture: type[PreTrainedModel]) -> LoadedWeights:
        """Have transformers load the checkpoint. Raises `CheckpointError` where it cannot."""
        transformers_logging.disable_progress_bar()
        kind = common_type(tensors := checkpoint.stored_tensors(folder))
        others = _parameters(copied_tensors(tensors), config)
        try:
            model = door.mapped_model(folder, config, architecture, DTYPES[kind], others)
        except Exception as error:  # transformers raises what the parsers under it raise
            logger.debug("loading the PyTorch model failed", exc_info=True)
            raise CheckpointError(f"PyTorch cannot load the model: {folder}: {reason(error)}") from error
        return cls(folder, model, MappedFiles.now())

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that share a tensor, as transformers settled it: name to owner."""
        return dict(self.model.all_tied_weights_keys or {})

    def read(self, name: str) -> Tensor:
        """A parameter in float32, in memory of its own."""
        parameter = self.model.get_parameter(name).detach()
        value: Tensor = parameter.to(torch.float32, copy=True)
        self._mapped.give_back(parameter)
        return value

    def buffer(self, name: str) -> Tensor:
        """A buffer as transformers loaded it."""
        value: Tensor = self.model.get_buffer(name).detach().float()
        return value

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """[stop - start, ...]: a part of a parameter along its first dimension, likewise."""
        part = self.model.get_parameter(name).detach()[start:stop]
        value: Tensor = part.to(torch.float32, copy=True)
        self._mapped.give_back(part)
        return value

    def parts(self, name: str, rows: int) -> Iterator[Tensor]:
        """All of a parameter, `rows` rows at a time, likewise."""
        total = self.model.get_parameter(name).shape[0]
        for start in range(0, total, rows):
            yield self.rows(name, start, min(start + rows, total))


def _parameters(tensors: Sequence[StoredTensor], config: PreTrainedConfig) -> frozenset[str]:
    """The names of the parameters that stored tensors are, or are parts of."""
    if not tensors:
        return frozenset()
    names = Names.of(skeleton.build(config))
    return frozenset(name for tensor in tensors for name in names.parameters(tensor.name))
