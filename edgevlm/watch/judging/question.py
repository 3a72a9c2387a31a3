"""What is asked about every frame that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of a plan."""

    name: str
    text: str
    kind: str = "choice"
    """The rule's: `rules.RULES`."""
    options: Any
    """The `Options` of the rule's file."""
    region: str | None = None
    """The region it is about; None is the whole picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Pictures of good parts, shown to the model before every frame; encoded once, kept as keys and values."""

    images: tuple[Path, ...]
    text: str = ""
    """Said to the model with them."""
