"""Frames that wait for the judge.

On a live source a frame that nobody asked for waits in one place, and a newer one replaces it: what is judged next is
the newest there is. A frame that somebody did ask for (`Firing.addressed`) waits for its turn in a bounded queue. A
source that is not live waits until its picture is judged before it reads the next: none is dropped, and none grows old.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.triggers.base import Firing

MOST_BYTES = 256 << 20
"""Pictures that may wait, in bytes; above it a job waits without the frames before it, and above it still it does not
wait at all, as if the queue were full."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A frame that is to be judged, and why."""

    frame: Frame
    firing: Firing
    before: tuple[Frame, ...] = ()
    """Frames of the seconds before it, oldest first."""
    deadline: float | None = None
    """`time.monotonic()` by which there is a verdict in any case."""

    @property
    def picture_bytes(self) -> int:
        """What its pictures hold in memory, as if it shared them with nobody."""
        return sum(frame.pixels.nbytes for frame in (self.frame, *self.before))


class Jobs:
    """Between the thread that reads the source and the one that judges. Bounds: `waiting` jobs, `most_bytes`."""

    def __init__(self, *, live: bool, waiting: int, most_bytes: int = MOST_BYTES) -> None:
        """`live`: see `Source.live`."""
        self._live, self._most, self._most_bytes = live, waiting, most_bytes
        self._addressed: deque[Job] = deque()
        self._newest: Job | None = None
        self._judged: Job | None = None
        self._closed = False
        self.total_dropped = self._told_dropped = 0
        """How many were replaced by a newer one, or left at the end."""
        self._change = threading.Condition()

    def fitted(self, job: Job) -> Job:
        """The job as it can wait: without the frames before it, where memory does not hold them."""
        with self._change:
            return job if not job.firing.addressed or self._has_place(job) else replace(job, before=())

    def put(self, job: Job) -> bool:
        """Let a job wait. False for one that somebody asked for and that cannot wait: too many do, or it is the end."""
        with self._change:
            if self._closed:
                self.total_dropped += not job.firing.addressed
                return not job.firing.addressed
            if not job.firing.addressed:
                self.total_dropped += self._newest is not None
            elif not self._has_place(job):
                return False
            self._place(job)
            if not self._live:
                self._change.wait_for(lambda: self._closed or not self._open(job))
            return True

    def take(self, timeout: float) -> Job | None:
        """The next job: one that was asked for goes first. None when there is none for `timeout` seconds. The one taken
        before counts as judged."""
        with self._change:
            self._judged = None
            self._change.notify_all()
            self._change.wait_for(lambda: self._closed or len(self) > 0, timeout)
            if self._addressed:
                self._judged = self._addressed.popleft()
            else:
                self._judged, self._newest = self._newest, None
            self._change.notify_all()
            return self._judged

    def dropped(self) -> int:
        """How many were replaced by a newer one since this was last called."""
        with self._change:
            dropped, self._told_dropped = self.total_dropped - self._told_dropped, self.total_dropped
            return dropped

    def close(self) -> None:
        """Nothing more comes; what waits can still be taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def clear(self) -> list[Job]:
        """Nothing more comes, and what waits is not judged: those that somebody asked for."""
        with self._change:
            self._closed = True
            self.total_dropped += self._newest is not None
            left, self._newest = list(self._addressed), None
            self._addressed.clear()
            self._change.notify_all()
            return left

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing more comes."""
        with self._change:
            return self._closed and len(self) == 0

    def __len__(self) -> int:
        return len(self._addressed) + (self._newest is not None)

    def _has_place(self, job: Job) -> bool:
        held = sum(waiting.picture_bytes for waiting in self._addressed)
        fits = not self._addressed or held + job.picture_bytes <= self._most_bytes
        return len(self._addressed) < self._most and fits

    def _place(self, job: Job) -> None:
        if job.firing.addressed:
            self._addressed.append(job)
        else:
            self._newest = job
        self._change.notify_all()

    def _open(self, job: Job) -> bool:
        return job is self._judged or job is self._newest or job in self._addressed
