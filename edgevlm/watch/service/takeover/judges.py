"""The judge that is asked now, and the one before it while the new one has yet to prove itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.status import Status
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import reason

log = logging.getLogger(__name__)

PROBATION = 5
"""Frames that a new judge has to answer before the old one is let go; until then both are in memory."""
CONDITION = "reload"


class Asked(Protocol):
    """What is asked about frames: `judging.judge.Judge`."""

    def judge(self, frame: Frame) -> Judgement:
        """The verdict on a frame."""
        ...

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Every verdict there can be."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Seated:
    """A judge, and what it judges by."""

    judge: Asked
    plan: Plan
    vlm: VLM

    @property
    def bundle(self) -> str:
        """The bundle's content digest."""
        return self.vlm.bundle.content_digest


def unanswered(judgement: Judgement) -> str:
    """Why no question of a frame was answered; empty where one was."""
    errors = [answer.error for answer in judgement.answers]
    return errors[0] if errors and all(errors) else ""


class Judges:
    """Asks the present judge. `judge` is called by one thread, which is where judges change, between two frames."""

    def __init__(self, first: Seated, changed: Callable[[Seated], None], status: Status) -> None:
        """`changed` is called with every judge that takes the seat after the first, also one that returns to it."""
        self._now, self._changed, self._status = first, changed, status
        self._before: Seated | None = None
        self._left = 0
        self._offered: Seated | None = None
        self._lock = threading.Lock()

    @property
    def now(self) -> Seated:
        """Who is asked."""
        return self._now

    def offer(self, new: Seated) -> None:
        """Take `new` from the next frame on, from whatever thread; it proves itself on its first frames."""
        with self._lock:
            passed_over, self._offered = self._offered, new
        if passed_over is not None:
            passed_over.judge.close()

    def judge(self, frame: Frame) -> Judgement:
        """The verdict on a frame; where a new judge cannot give one, the old one is back and gives it.

        Raises what the judge raises, when there is no older one.
        """
        self._take_over()
        if self._before is None:
            return self._now.judge.judge(frame)
        try:
            judgement = self._now.judge.judge(frame)
            failed = unanswered(judgement)
        except Exception as error:
            log.debug("the new judge failed", exc_info=error)
            failed = reason(error)
        if failed:
            return self._go_back(self._before, failed).judge.judge(frame)
        self._left -= 1
        if not self._left:
            self._before.judge.close()
            self._before = None
        return judgement

    def close(self) -> None:
        """Let go of all."""
        for seated in (self._offered, self._before, self._now):
            if seated is not None:
                seated.judge.close()

    def _take_over(self) -> None:
        with self._lock:
            new, self._offered = self._offered, None
        if new is None:
            return
        if self._before is None:
            self._before = self._now
        else:  # the one that leaves had not proved itself: the one before it stays
            self._now.judge.close()
        self._now, self._left = new, PROBATION
        self._changed(new)

    def _go_back(self, before: Seated, failed: str) -> Seated:
        text = f"what was new failed on its first frames, the old one is back: {failed}"
        self._status.count("reloads.returned")
        self._status.raise_condition(CONDITION, text)
        self._now.judge.close()
        self._now, self._before = before, None
        self._changed(before)
        return before
