"""The judging thread: one job after the other, each with a verdict at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.records.record import AnswerInfo
from edgevlm.watch.rules.base import UNSURE
from edgevlm.watch.service.deadlines import Deadlines
from edgevlm.watch.service.decisions import Decisions
from edgevlm.watch.service.health import Pulse
from edgevlm.watch.service.jobs import Job, Jobs
from edgevlm.watch.service.takeover.judges import Judges, unanswered
from edgevlm.watch.sinks.base import Pending
from edgevlm.watch.sinks.delivery.outlet import Outlet
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, reason

log = logging.getLogger(__name__)

IDLE_S = 0.25
CONDITION = "judging"


class Loop:
    """Judges until no more jobs come, or `max_frames` were judged."""

    def __init__(
        self,
        jobs: Jobs,
        judges: Judges,
        deadlines: Deadlines,
        decisions: Decisions,
        outlet: Outlet,
        pulse: Pulse,
        status: Status,
    ) -> None:
        self._jobs, self._judges, self._deadlines, self._decisions = jobs, judges, deadlines, decisions
        self._outlet, self._pulse, self._status = outlet, pulse, status
        self.judged = 0
        self._in_hand: Job | None = None
        self._lock = threading.Lock()

    def leave(self) -> Job | None:
        """The judge hangs, and nobody waits for it any longer: the job in hand, which it does not answer then."""
        with self._lock:
            job, self._in_hand = self._in_hand, None
            return job

    def run(self, *, live: bool, max_frames: int | None, idle: Callable[[], None]) -> None:
        """Judge all. `idle` is called a few times a second while there is nothing to do."""
        while not self._jobs.finished and self.judged != max_frames:
            job = self._jobs.take(IDLE_S)
            if job is None:
                idle()
            elif live and job.firing.addressed and len(self._jobs) and self._deadlines.passed(job):
                self._deadlines.finish(job)  # its default went out while it waited, and others wait now
                self._status.count("late_not_judged")
            else:
                with self._pulse.work():
                    self._judge(job)

    def _judge(self, job: Job) -> None:
        self._deadlines.watch(job)
        self._outlet.pending(Pending(job.frame, job.firing.kind, job.firing.text, job.deadline))
        with self._lock:
            self._in_hand = job
        judgement = self._answer(job.frame)
        if self.leave() is None:
            return
        self.judged += 1
        self._decisions.answer(job, judgement, self._deadlines.finish(job))

    def _answer(self, frame: Frame) -> Judgement:
        """What the judge says; that it could say nothing is a verdict too."""
        start = time.perf_counter()
        try:
            judgement = self._judges.judge(frame)
        except Exception as error:
            log.log(logging.DEBUG if isinstance(error, EdgeVLMError) else logging.ERROR, "judging", exc_info=error)
            judgement = _failed(reason(error), (time.perf_counter() - start) * 1e3)
        if failed := unanswered(judgement):
            self._status.count("judging_failed")
            self._status.raise_condition(CONDITION, failed, bad=True)
        else:
            self._status.clear_condition(CONDITION)
        return judgement


def _failed(why: str, milliseconds: float) -> Judgement:
    answer = AnswerInfo(question="", text="", verdict=UNSURE, answer="", error=why)
    return Judgement(verdict=UNSURE, answers=(answer,), milliseconds=milliseconds)
