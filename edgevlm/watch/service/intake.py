"""Every frame of the source, on the source's thread: kept for those after it, and a job where the trigger fires."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.ring import Ring
from edgevlm.watch.service.board import Board
from edgevlm.watch.service.deadlines import Deadlines
from edgevlm.watch.service.health import Pulse
from edgevlm.watch.service.jobs import Job, Jobs
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing, Trigger
from edgevlm_runtime.errors import reason

log = logging.getLogger(__name__)


class Intake:
    """Takes frames. Keeps those of the last `plan.before_s` seconds (`frames.ring`: at most 256 MiB)."""

    def __init__(
        self, trigger: Trigger, ring: Ring, jobs: Jobs, deadlines: Deadlines, board: Board, pulse: Pulse, status: Status
    ) -> None:
        self._trigger, self._ring, self._jobs, self._deadlines = trigger, ring, jobs, deadlines
        self._board, self._pulse, self._status = board, pulse, status
        self.deadline_ms: float | None = None
        """Of the plan that is followed now."""
        self.frames = 0

    def run(self, frames: Iterable[Frame], refused: Callable[[Job], None]) -> None:
        """Take all of them. `refused` is told of jobs that somebody asked for and that cannot wait."""
        try:
            for frame in frames:
                self.take(frame, refused)
        finally:
            self._jobs.close()

    def take(self, frame: Frame, refused: Callable[[Job], None]) -> None:
        """One frame: in milliseconds, or, for a source that is not live, once there is a place for it."""
        with self._pulse.work():
            self.frames += 1
            self._board.saw(frame)
            firing = self._fire(frame)
            job = None if firing is None else self._job(frame, firing)
            self._ring.add(frame)
        if job is not None:
            self._put(job, refused)

    def _fire(self, frame: Frame) -> Firing | None:
        try:
            firing = self._trigger.fire(frame)
        except Exception as error:
            log.debug("the trigger failed", exc_info=error)
            self._status.count("trigger_failed")
            self._status.raise_condition("trigger", reason(error), bad=True)
            return None
        self._status.clear_condition("trigger")
        return firing

    def _job(self, frame: Frame, firing: Firing) -> Job:
        asked = min(frame.captured, firing.fired)  # whoever asked while the camera was away has waited since then
        deadline = None if self.deadline_ms is None else asked + self.deadline_ms / 1e3
        return self._jobs.fitted(Job(frame, firing, self._ring.before(frame), deadline))

    def _put(self, job: Job, refused: Callable[[Job], None]) -> None:
        """Whoever asked for a verdict has a deadline from now on; others when their turn comes."""
        if job.firing.addressed:
            self._deadlines.watch(job)
        if not self._jobs.put(job) and self._deadlines.finish(job) is None:
            refused(job)
