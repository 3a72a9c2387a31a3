"""What every data set gives: questions about images, with the answers that are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from edgevlm_runtime.errors import EdgeVLMError


@dataclass(frozen=True, slots=True)
class Case:
    """One question. Cases about the same images follow each other."""

    id: str
    """Unique in the data set, and the same each time it is read."""
    images: tuple[Path | Image.Image, ...]
    image_name: str
    """Names the images for people; equal for cases that share them."""
    question: str
    answer: str | None
    """The right answer; None where nobody knows it (only differences from the reference count then)."""
    kind: str
    """The group of questions that figures are given for."""
    choices: tuple[str, ...] = ()
    """Answers to compute probabilities of; none for free text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """Which part of a data set. Raises `EdgeVLMError` for numbers that mean nothing."""

    n: int | None = None
    """Questions; None takes the data set's own choice."""
    split: str | None = None
    per_image: int = 1
    """Questions about each image, where the data set draws them."""

    def __post_init__(self) -> None:
        for name in ("n", "per_image"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EdgeVLMError(f"bad value for {name}: {value}: it must be at least 1")


class Dataset(Protocol):
    """Cases that can be read as often as wanted."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def identity(self) -> str:
        """Equal only for the same cases: answers that were stored are continued only when this is equal."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Case]: ...
