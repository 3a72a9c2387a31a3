"""One region, or the whole picture: its session, what is asked of it, and what it last answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgevlm.watch.frames.change import difference, signature
from edgevlm.watch.frames.regions import Region, cut, load_mask
from edgevlm.watch.judging.question import Asks, Question
from edgevlm.watch.records.record import AnswerInfo
from edgevlm.watch.rules.base import UNSURE, Rule
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError, one_line

Pixels = NDArray[np.uint8]
GREY = 128
SIDE = 224
"""Pixels of the picture that `check` asks about."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and what its answers mean."""

    question: Question
    rule: Rule


@dataclass(slots=True)
class _Last:
    """What was last asked about, and answered."""

    signature: NDArray[np.float32]
    answers: tuple[AnswerInfo, ...]
    reused: int = 0
    """Times in a row that they were taken over."""


class Part:
    """Asks about one part of every frame. For one thread at a time."""

    def __init__(
        self, vlm: VLM, plan: Asks, region: Region | None, asked: Sequence[Asked], golden: Sequence[Pixels]
    ) -> None:
        """`region`: None for the whole picture; `golden`: the plan's pictures. Raises `EdgeVLMError`."""
        self._region = region
        self._mask = None if region is None or region.mask is None else load_mask(region.mask)
        self._asked = tuple(asked)
        self._golden = tuple(golden)
        self._shown = self._golden
        self._cut_for: tuple[int, ...] = ()
        """Shape of the frames that `_shown` was cut like."""
        self._before = "" if plan.golden is None or not plan.golden.text else plan.golden.text + "\n"
        self._reuse = plan.reuse
        self._last: _Last | None = None
        self._session = vlm.session(system=plan.system)

    def check(self) -> None:
        """Ask everything once, about a grey picture. Raises `EdgeVLMError`, which names the question."""
        grey = np.full((SIDE, SIDE, 3), GREY, np.uint8)
        self._show(grey, grey)
        for asked in self._asked:
            try:
                asked.rule.check(self._session, self._before + asked.question.text)
            except EdgeVLMError as error:
                raise EdgeVLMError(f"question {asked.question.name}: {error}") from error

    def judge(self, frame: Pixels) -> tuple[AnswerInfo, ...]:
        """The answers about a frame, in order: asked, or taken over where the region has not changed."""
        start = time.perf_counter()
        try:
            pixels = self._cut(frame)
            now = None if self._reuse.below is None else signature(pixels)
            change = None if now is None or self._last is None else difference(self._last.signature, now)
            if self._last is not None and change is not None and self._holds(self._last, change):
                return self._taken_over(self._last, change, start)
            self._show(pixels, frame)
        except EdgeVLMError as error:
            self._last = None
            return tuple(_failed(asked.question, error, start) for asked in self._asked)
        answers = tuple(self._answers(change, start))
        whole = now is not None and not any(answer.error for answer in answers)
        self._last = _Last(now, answers) if now is not None and whole else None
        return answers

    def close(self) -> None:
        """Release the session."""
        self._session.close()

    def _holds(self, last: _Last, change: float) -> bool:
        """Whether the last answers may be taken over."""
        below = self._reuse.below
        return below is not None and change <= below and last.reused < self._reuse.at_most

    def _taken_over(self, last: _Last, change: float, start: float) -> tuple[AnswerInfo, ...]:
        last.reused += 1
        spent = _since(start) / len(last.answers)
        return tuple(replace(answer, reused=True, difference=change, milliseconds=spent) for answer in last.answers)

    def _answers(self, change: float | None, start: float) -> Iterator[AnswerInfo]:
        """`start`: when work on the frame began; the first question pays for what all share."""
        for asked in self._asked:
            try:
                judged = asked.rule.judge(self._session, self._before + asked.question.text)
            except EdgeVLMError as error:
                yield replace(_failed(asked.question, error, start), difference=change)
            else:
                yield AnswerInfo(
                    question=asked.question.name,
                    text=asked.question.text,
                    verdict=judged.verdict,
                    answer=judged.answer,
                    probability=judged.probability,
                    probabilities=judged.probabilities,
                    value=judged.value,
                    tokens=judged.tokens,
                    milliseconds=_since(start),
                    difference=change,
                    error=judged.error,
                )
            start = time.perf_counter()

    def _show(self, pixels: Pixels, frame: Pixels) -> None:
        """The golden pictures, then this one. Those of the frame's size are cut as the frame is."""
        if self._cut_for != frame.shape:
            self._shown = tuple(self._like_frame(golden, frame) for golden in self._golden)
            self._cut_for = frame.shape
        self._session.show(*self._shown, pixels)

    def _like_frame(self, golden: Pixels, frame: Pixels) -> Pixels:
        return self._cut(golden) if golden.shape == frame.shape else golden

    def _cut(self, frame: Pixels) -> Pixels:
        return frame if self._region is None else cut(frame, self._region, self._mask)


def _failed(question: Question, error: EdgeVLMError, start: float) -> AnswerInfo:
    return AnswerInfo(
        question=question.name,
        text=question.text,
        verdict=UNSURE,
        answer="",
        milliseconds=_since(start),
        error=one_line(error),
    )


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
