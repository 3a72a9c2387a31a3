"""What judging a frame gives."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm.watch.records.record import AnswerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on one frame and where it comes from."""

    verdict: str
    answers: tuple[AnswerInfo, ...]
    milliseconds: float
    """All of it: cutting, comparing, encoding, asking."""
