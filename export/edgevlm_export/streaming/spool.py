"""Calibrated weights on disk, from when they are computed until the graph is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from edgevlm_export.checkpoints import door


@dataclass(frozen=True, slots=True)
class Spool:
    """A folder with one file per weight."""

    folder: Path

    def save(self, weight: str, made: Mapping[str, Tensor]) -> None:
        """Keep the initializers made from `weight`."""
        save_file(dict(made), self._file(weight))

    def load(self, weight: str) -> Mapping[str, Tensor] | None:
        """What was made from `weight`, or None."""
        file = self._file(weight)
        return door.tensors(file) if file.is_file() else None

    def _file(self, weight: str) -> Path:
        return self.folder / f"{hashlib.sha256(weight.encode()).hexdigest()}.safetensors"
