"""The surfaces, one file for each. A file holds

mutate(data, rng, others) -> bytes      an input changed, most of its structure kept; `others` are further inputs
Surface(folder).run(data)               what the product does with it; `folder` is empty and the surface's own
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

TARGETS = ("image", "manifest", "tokenizer", "template", "prompt", "safetensors", "config", "cli")
"""Names of the files, the cheapest to start first."""

HERE = Path(__file__).parents[1]


class Surface(Protocol):
    """What is tried."""

    def run(self, data: bytes) -> None:
        """Use one input as the product does. Raises whatever comes of it."""
        ...


class Target(Protocol):
    """A file of this package."""

    @staticmethod
    def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes: ...

    @staticmethod
    def Surface(folder: Path) -> Surface: ...


def get_target(name: str) -> Target:
    """The file called `name`. Raises `KeyError`."""
    if name not in TARGETS:
        raise KeyError(name)
    target: Target = import_module(f"{__name__}.{name}")  # type: ignore[assignment]
    return target


def inputs(name: str) -> list[Path]:
    """Seeds and findings of a target."""
    return sorted(file for folder in ("corpus", "findings") for file in (HERE / folder / name).glob("*"))
