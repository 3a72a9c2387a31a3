"""Every frame's verdict, on its way out: recorded first, then handed to the sinks and the board, in one order."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.service.board import Board
from edgevlm.watch.service.jobs import Job, Jobs
from edgevlm.watch.sinks.base import Delivery
from edgevlm.watch.sinks.delivery.outlet import Outlet
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing

IN_TIME, DEFAULT, LATE, SKIPPED = "in time", "default", "late", "skipped"


class Book(Protocol):
    """Makes records: `records.book.Book`."""

    def add(
        self,
        frame: Frame,
        firing: Firing,
        verdict: str,
        answers: tuple[AnswerInfo, ...] = (),
        *,
        status: str = IN_TIME,
        late_for: int | None = None,
        dropped: int = 0,
    ) -> Record:
        """The record of a verdict, written."""
        ...


class Decisions:
    """Safe to use from several threads. Counters: `verdicts.VERDICT` (in time or default), `records.STATUS`."""

    def __init__(self, book: Book, outlet: Outlet, board: Board, jobs: Jobs, status: Status, default: str) -> None:
        self._book, self._outlet, self._board, self._jobs, self._status = book, outlet, board, jobs, status
        self.default_verdict = default
        self.verdicts: Counter[str] = Counter()
        """How often each was sent as the frame's verdict."""
        self.statuses: Counter[str] = Counter()
        """How many records of each status."""
        self._lock = threading.Lock()

    def answer(self, job: Job, judgement: Judgement, late_for: int | None) -> Record:
        """What the judge says; `late_for`: the record that went out at the deadline in its place."""
        self._status.measure("judging_ms", judgement.milliseconds)
        state = IN_TIME if late_for is None else LATE
        return self._send(job, judgement.verdict, state, judgement.answers, late_for)

    def default(self, job: Job) -> int:
        """The deadline has passed; the number of the record."""
        return self._send(job, self.default_verdict, DEFAULT).number

    def skip(self, job: Job) -> None:
        """Nobody will judge it, and somebody waits for a verdict."""
        self._send(job, self.default_verdict, SKIPPED)

    def _send(
        self,
        job: Job,
        verdict: str,
        state: str,
        answers: tuple[AnswerInfo, ...] = (),
        late_for: int | None = None,
    ) -> Record:
        with self._lock:
            dropped = self._jobs.dropped()
            record = self._book.add(
                job.frame, job.firing, verdict, answers, status=state, late_for=late_for, dropped=dropped
            )
            self._outlet.deliver(Delivery(record, job.frame, job.before))
            self.statuses[state] += 1
            if state != LATE:
                self.verdicts[verdict] += 1
        self._status.count("frames_dropped", dropped)
        self._status.count(f"records.{state}")
        self._status.measure("latency_ms", record.latency_ms)
        if state != LATE:
            self._status.count(f"verdicts.{verdict}")
        self._board.show(record, job.frame)
        return record
