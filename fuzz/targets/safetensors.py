"""The head of a file of weights, length and JSON: indexed under the model's names, and every tensor read.

The tensors' bytes are the tiny checkpoint's own, put behind each input.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights.files import SINGLE
from fuzz.mutate import mutate_bytes, mutate_json
from tests.support import checkpoints

LENGTH = 8


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The header's JSON, its length left right or not; or any byte."""
    length = int.from_bytes(data[:LENGTH], "little")
    if rng.random() < 0.2 or not 0 < length <= len(data):
        return mutate_bytes(data, rng, others)
    header = mutate_json(data[LENGTH : LENGTH + length], rng)
    said = (
        len(header) if rng.random() < 0.9 else rng.choice((0, 1, len(header) + 1, len(data), 2**31, 2**63, 2**64 - 1))
    )
    return said.to_bytes(LENGTH, "little") + header + data[LENGTH + length :]


def head(data: bytes) -> bytes:
    """Of a whole file."""
    return data[: LENGTH + int.from_bytes(data[:LENGTH], "little")]


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        self._folder = checkpoints.llava(folder / "checkpoint")
        whole = (self._folder / SINGLE).read_bytes()
        self._tensors = whole[len(head(whole)) :]
        self._model = skeleton.build(checkpoint.load_config(self._folder))
        for index in self._folder.glob("*.index.json"):
            index.unlink()

    def run(self, data: bytes) -> None:
        (self._folder / SINGLE).write_bytes(data + self._tensors)
        weights = checkpoint.open_weights(self._folder, self._model)
        for name in weights.tensors:
            weights.read(name)
