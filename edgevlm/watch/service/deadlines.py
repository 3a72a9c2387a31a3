"""Deadlines: a timer that gives a frame the default verdict when its time is over, whatever the judge is doing."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgevlm.watch.service.jobs import Job
from edgevlm.watch.service.workers import Worker


@dataclass(slots=True)
class _Watched:
    job: Job | None
    """None when there is nothing left to do: its pictures are let go before its time is over."""
    record: int | None = None
    """Number of the default's record, once it is written."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the default is sent, so that a late answer is recorded after it."""


class Deadlines:
    """Whoever is first, the judge or the clock (`time.monotonic`, which does not jump), has the frame's verdict."""

    def __init__(self, send_default: Callable[[Job], int], ended: threading.Event | None = None) -> None:
        """`send_default` makes the record of the default verdict and gives its number; called on the timer's thread.
        `ended` is set when that thread ends."""
        self._send_default = send_default
        self._order = itertools.count()
        self._due: list[tuple[float, int, _Watched]] = []
        self._watched: dict[Job, _Watched] = {}
        self._closed = False
        self._change = threading.Condition()
        self.thread = Worker("deadlines", self._run, threading.Event() if ended is None else ended)

    def start(self) -> None:
        """Start the timer."""
        self.thread.start()

    def watch(self, job: Job) -> None:
        """From now on the default is sent at the job's deadline; a second time changes nothing."""
        if job.deadline is None:
            return
        _ = job.frame.digest  # a record needs it, and there is no time for it at the deadline
        with self._change:
            if job in self._watched:
                return
            watched = self._watched[job] = _Watched(job)
            heapq.heappush(self._due, (job.deadline, next(self._order), watched))
            self._change.notify()

    def passed(self, job: Job) -> bool:
        """Whether its deadline is over."""
        return job.deadline is not None and time.monotonic() >= job.deadline

    def finish(self, job: Job) -> int | None:
        """There is an answer: None when it is in time, else the number of the default's record, which the answer is
        late for. Call once for every job that was watched, also when no answer comes."""
        if job.deadline is None:
            return None
        with self._change:
            watched = self._watched.pop(job)
        with watched.lock:
            if watched.job is not None and self.passed(job):  # the timer is about to wake up
                watched.record = self._send_default(job)
            watched.job = None
            return watched.record

    def close(self) -> None:
        """Stop the timer; deadlines that are still to come are forgotten."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while (watched := self._next()) is not None:
            with watched.lock:
                if watched.job is not None:
                    watched.record = self._send_default(watched.job)
                    watched.job = None

    def _next(self) -> _Watched | None:
        """Wait for the next deadline to pass; None at the end."""
        with self._change:
            while not self._closed:
                if not self._due:
                    self._change.wait()
                elif (left := self._due[0][0] - time.monotonic()) > 0:
                    self._change.wait(left)
                else:
                    return heapq.heappop(self._due)[2]
        return None
