"""What is asked about every frame that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgevlm.watch.frames.regions import Region


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


class Unchanged(Protocol):
    """When an unchanged region takes the last answers over (`plan.Reuse`)."""

    @property
    def below(self) -> float | None:
        """Largest difference that counts as unchanged; None asks every time."""
        ...

    @property
    def at_most(self) -> int:
        """Times in a row before it is asked again in any case."""
        ...


class Asks(Protocol):
    """What a judge needs of a plan (`plan.Plan`)."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """Parts of the picture that questions name."""
        ...

    @property
    def golden(self) -> Golden | None:
        """Pictures shown before each frame."""
        ...

    @property
    def system(self) -> str | None:
        """System prompt; None takes the bundle's own."""
        ...

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is asked, at least one."""
        ...

    @property
    def order(self) -> tuple[str, ...]:
        """Verdicts from worst to best; empty: the first question that gives verdicts decides alone."""
        ...

    @property
    def reuse(self) -> Unchanged:
        """When answers are taken over."""
        ...
