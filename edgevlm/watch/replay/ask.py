"""Ask the frames of records again, and compare."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.plan.plan import Plan, Reuse
from edgevlm.watch.records.pictures import Kept, NotKept
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm_runtime import VLM

NO_ANSWER = "no answer was given in time"
TAKEN_OVER = "the answer was taken over from an earlier frame"


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
    new_answer: str
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


def replay(
    records: Iterable[Record],
    kept: Kept,
    vlm: VLM,
    plan: Plan,
    *,
    into: Replayed | None = None,
    stop: threading.Event | None = None,
) -> Replayed:
    """Judge the kept frame of every record by `plan`'s questions, regions and rules. No answer is taken over from one
    frame to the next. `into`: goes on with an earlier result.

    Raises `EdgeVLMError` for what the bundle cannot answer.
    """
    found = Replayed() if into is None else into
    with Judge(vlm, replace(plan, reuse=Reuse())) as judge:
        for record in records:
            if stop is not None and stop.is_set():
                break
            _ask(record, kept, judge, found)
    return found


def _ask(record: Record, kept: Kept, judge: Judge, found: Replayed) -> None:
    reason = not_comparable(record)
    if reason:
        found.left_out[reason] += 1
        return
    try:
        picture = kept.frame(record)
    except NotKept as error:
        found.left_out[error.reason] += 1
        return
    now = judge.judge(picture.frame)
    found.asked += 1
    found.inexact += not picture.exact
    found.largest_change = max(found.largest_change, _largest_change(record, now))
    if now.verdict != record.verdict:
        found.flips.append(_flip(record, now, picture.exact))


def not_comparable(record: Record) -> str:
    """Why a record says nothing about its own frame; empty where it does."""
    if not record.answers:
        return NO_ANSWER
    return TAKEN_OVER if any(answer.reused for answer in record.answers) else ""


def _flip(record: Record, now: Judgement, exact: bool) -> Flip:
    return Flip(
        number=record.number,
        id=record.id,
        part=record.trigger_text or record.frame.name,
        captured_at=record.frame.captured_at,
        old=record.verdict,
        new=now.verdict,
        answers=tuple(
            Change(old.question, old.verdict, new.verdict, old.answer, new.answer, old.probability, new.probability)
            for old, new in _pairs(record, now)
            if old.verdict != new.verdict
        ),
        exact=exact,
    )


def _largest_change(record: Record, now: Judgement) -> float:
    """Of the choices that both know."""
    changes = (
        abs(share - new.probabilities[choice])
        for old, new in _pairs(record, now)
        for choice, share in old.probabilities.items()
        if choice in new.probabilities
    )
    return max(changes, default=0.0)


def _pairs(record: Record, now: Judgement) -> list[tuple[AnswerInfo, AnswerInfo]]:
    """Answers to questions of the same name."""
    asked = {answer.question: answer for answer in now.answers}
    return [(old, asked[old.question]) for old in record.answers if old.question in asked]
