"""What asking frames again gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Change:
    """A question whose answer means something else now."""

    question: str
    """Its name in the plan."""
    old: str
    """The verdict that was recorded for it."""
    new: str
    """The verdict now."""
    old_answer: str
    """The answer that was recorded."""
    new_answer: str
    """The answer now."""
    old_probability: float | None
    """Of the recorded answer; null for free text."""
    new_probability: float | None
    """Of the answer now."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A record whose verdict is another now."""

    number: int
    """The record's."""
    id: str
    """The record's."""
    part: str
    """What came with the trigger; else the file the frame came from."""
    captured_at: float
    """Unix time in seconds."""
    old: str
    """The verdict that was recorded."""
    new: str
    """The verdict now."""
    answers: tuple[Change, ...]
    """The questions that make the difference."""
    exact: bool
    """Whether the pixels are those that were judged; not so where pictures are kept as JPEG."""


@dataclass(slots=True)
class Replayed:
    """What asking again gave."""

    asked: int = 0
    """Records that were asked again."""
    inexact: int = 0
    """Of these, asked with a picture that is not exactly what was judged."""
    flips: list[Flip] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why records were not asked again, and how many."""
    largest_change: float = 0.0
    """Of any probability of a choice, from then to now."""
