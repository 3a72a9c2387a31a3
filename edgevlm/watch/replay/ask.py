"""Ask the frames of records again, and compare."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.plan.plan import Plan, Reuse
from edgevlm.watch.records.pictures import Kept, NotKept
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.replay.found import Change, Flip, Replayed
from edgevlm_runtime import VLM

NO_ANSWER = "no answer was given in time"
TAKEN_OVER = "the answer was taken over from an earlier frame"


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
        judge.check()  # as a watch does before its first frame
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
