"""Small real parts of a watch for tests: cheap frames, slow judges, sinks that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.ring import Ring
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.page.board import Watched
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.service.board import Board
from edgevlm.watch.service.deadlines import Deadlines
from edgevlm.watch.service.decisions import Decisions
from edgevlm.watch.service.health import Health
from edgevlm.watch.service.intake import Intake
from edgevlm.watch.service.jobs import Jobs
from edgevlm.watch.service.loop import Loop
from edgevlm.watch.service.takeover.judges import Judges, Seated
from edgevlm.watch.service.workers import Worker
from edgevlm.watch.sinks.base import Delivery, Pending
from edgevlm.watch.sinks.delivery.outlet import Outlet
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing

VERDICTS = ("reject", "accept", "unsure")


def frame(sequence: int = 1, side: int = 8, captured: float | None = None) -> Frame:
    """A square frame, of `sequence` in every channel, so that no two are equal."""
    pixels = np.full((side, side, 3), sequence % 256, np.uint8)
    return Frame(sequence, time.time(), time.monotonic() if captured is None else captured, pixels)


def judgement(verdict: str = "accept", error: str = "") -> Judgement:
    answer = AnswerInfo(question="defect", text="Is there one?", verdict=verdict, answer="no", error=error)
    return Judgement(verdict=verdict, answers=(answer,), milliseconds=1.0)


class FakeJudge:
    """Calls `answer(frame)`; after `seconds`, as a model would take them."""

    def __init__(self, answer: Callable[[Frame], Judgement] = lambda _: judgement(), seconds: float = 0.0) -> None:
        self._answer, self._seconds = answer, seconds
        self.seen: list[int] = []
        self.longest = 0.0
        self.closed = False

    @property
    def verdicts(self) -> tuple[str, ...]:
        return VERDICTS

    def judge(self, asked: Frame) -> Judgement:
        start = time.monotonic()
        self.seen.append(asked.sequence)
        time.sleep(self._seconds)
        try:
            return self._answer(asked)
        finally:
            self.longest = max(self.longest, time.monotonic() - start)

    def close(self) -> None:
        self.closed = True


class ListSink:
    """Keeps everything it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Pending | Delivery] = []
        self.times: list[float] = []
        self.beats = 0
        self.closed = threading.Event()

    @property
    def records(self) -> list[Record]:
        return [one.record for one in self.told if isinstance(one, Delivery)]

    def start(self) -> None:
        pass

    def pending(self, pending: Pending) -> None:
        self.told.append(pending)

    def deliver(self, delivery: Delivery) -> None:
        self.times.append(time.monotonic())
        self.told.append(delivery)

    def beat(self, healthy: bool) -> None:
        self.beats += 1

    def close(self) -> None:
        self.closed.set()


class HangingSink(ListSink):
    """Does not come back from `deliver` until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def deliver(self, delivery: Delivery) -> None:
        self.released.wait()
        super().deliver(delivery)


class AlwaysTrigger:
    """Fires at every frame."""

    def __init__(self, addressed: bool = False) -> None:
        self._addressed = addressed
        self.closed = False

    def start(self) -> None:
        pass

    def fire(self, _: Frame) -> Firing:
        return Firing("test", addressed=self._addressed)

    def close(self) -> None:
        self.closed = True


def delivery(number: int = 1, side: int = 8, before: tuple[Frame, ...] = ()) -> Delivery:
    """A verdict as the book makes it."""
    book = Book(None, bundle="b" * 64, plan="p" * 64, status=Status())
    shown = frame(number, side)
    record = book.add(shown, Firing("test"), "accept")
    return Delivery(record, shown, before)


def board(status: Status, health: Health | None = None, keep: Callable[..., Any] = lambda *_: None) -> Board:
    about = Watched(name="test", verdicts=VERDICTS, questions=("defect",))
    return Board(about, status, health or Health(status), keep)


class Line:
    """The service without a source, a model or a plan: frames go in by `take`, verdicts come out at `sink`."""

    def __init__(
        self,
        judge: FakeJudge,
        *,
        live: bool = True,
        addressed: bool = False,
        waiting: int = 8,
        deadline_ms: float | None = None,
        max_frames: int | None = None,
        sinks: dict[str, Any] | None = None,
    ) -> None:
        self.status = Status()
        self.health = Health(self.status)
        self.sink = ListSink()
        self.board = board(self.status, self.health)
        self.jobs = Jobs(live=live, waiting=waiting)
        self.outlet = Outlet({"list": self.sink, **(sinks or {})}, self.status, lambda: True)
        book = Book(None, bundle="b" * 64, plan="p" * 64, status=self.status)
        self.decisions = Decisions(book, self.outlet, self.board, self.jobs, self.status, "unsure")
        self.deadlines = Deadlines(self.decisions.default)
        trigger, ring = AlwaysTrigger(addressed), Ring(0)
        self.intake = Intake(trigger, ring, self.jobs, self.deadlines, self.board, self.health.intake, self.status)
        self.intake.deadline_ms = deadline_ms
        nothing: Any = None
        self.judges = Judges(Seated(judge, nothing, nothing), lambda _: None, self.status)
        self.loop = Loop(
            self.jobs, self.judges, self.deadlines, self.decisions, self.outlet, self.health.judging, self.status
        )
        work = partial(self.loop.run, live=live, max_frames=max_frames, idle=lambda: None)
        self.judging = Worker("judging", work, threading.Event())

    def start(self) -> None:
        self.outlet.start()
        self.deadlines.start()
        self.judging.start()

    def take(self, one: Frame) -> None:
        self.intake.take(one, self.decisions.skip)

    def finish(self) -> list[Record]:
        """No more frames come; every record, once all are judged."""
        self.jobs.close()
        self.judging.join(60)
        assert not self.judging.is_alive()
        assert self.judging.error is None
        self.deadlines.close()
        self.outlet.close(60)
        return self.sink.records
