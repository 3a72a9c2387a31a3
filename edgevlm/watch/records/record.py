"""One verdict with everything it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInfo:
    """The frame that was judged. A part that asked while the camera gave none has `sequence` 0, no size, and no sha256:
    its verdict is the default."""

    sequence: int
    captured_at: float
    """Unix time in seconds; without a frame, when the part asked."""
    sha256: str
    """`Frame.digest`: a kept picture is found by it; empty without a frame."""
    width: int
    height: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInfo:
    """What one question gave."""

    question: str
    """Its name in the plan."""
    text: str
    """As it was asked."""
    verdict: str
    answer: str
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    value: Any = None
    tokens: tuple[int, ...] = ()
    milliseconds: float = 0.0
    reused: bool = False
    """Whether the region had not changed, and the last answer was taken over."""
    difference: float | None = None
    """How far the region is from the one that was last asked about (`frames.change`), where that was measured."""
    error: str = ""
    """Why there is no answer; the verdict is then "unsure"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a record file; a chain, since each has the digest of the one before."""

    schema: int = SCHEMA
    number: int
    """1 for the first; goes on after a restart where there is a file."""
    id: str
    """Names this record for ever: a repeat is recognised by it."""
    status: str
    """"in time"; "default" (the deadline passed, or the judge hung at the end: the plan's default was sent); "late"
    (the answer to one of those); "skipped" (a part that asked for a verdict while too many waited, or at the end: the
    default was sent)."""
    late_for: int | None = None
    """For "late": the number of the record whose place it would have had."""
    verdict: str
    answers: tuple[AnswerInfo, ...] = ()
    frame: FrameInfo
    trigger: str
    trigger_text: str = ""
    triggered_at: float
    decided_at: float
    latency_ms: float
    """From the frame's capture (without a frame: from the asking) to the verdict, by a clock that does not jump."""
    dropped: int = 0
    """Frames dropped since the record before."""
    bundle: str
    """The bundle's content digest."""
    plan: str
    """sha256 of the plan as data."""
    previous: str
    """`sha256` of the record before; 64 zeros for the first. Where a start found the file before broken, the sha256
    of that whole file."""
    sha256: str = ""
    """Of this record's line without this field."""
