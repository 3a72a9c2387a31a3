"""Deadlines: the default at the deadline, whatever the judge is doing."""

import gc
import threading
import time
import weakref

from edgevlm.watch.service.deadlines import Deadlines
from edgevlm.watch.service.jobs import Job
from edgevlm.watch.triggers.base import Firing
from tests.support.polling import until
from tests.support.watching import frame


class Sent:
    """Keeps when the default was sent for which frame."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def __call__(self, job: Job) -> int:
        self.times[job.frame.sequence] = time.monotonic()
        return 1000 + job.frame.sequence


def job(sequence: int, after: float | None) -> Job:
    shown = frame(sequence)
    return Job(shown, Firing("test"), (), None if after is None else shown.captured + after)


def test_an_answer_in_time_is_the_verdict():
    sent = Sent()
    deadlines = Deadlines(sent)
    deadlines.start()
    long, none = job(1, 600), job(2, None)
    for one in (long, none):
        deadlines.watch(one)
        assert deadlines.finish(one) is None
    deadlines.close()
    assert sent.times == {}


def test_the_default_goes_out_while_the_judge_computes():
    sent = Sent()
    deadlines = Deadlines(sent)
    deadlines.start()
    waiting = job(7, 0.05)
    deadlines.watch(waiting)
    deadlines.watch(waiting)
    until(lambda: sent.times, "the default, with nobody calling `finish`")
    assert sent.times[7] >= waiting.deadline
    assert deadlines.finish(waiting) == 1007
    deadlines.close()


def test_the_earliest_deadline_goes_first():
    sent = Sent()
    deadlines = Deadlines(sent)
    jobs = [job(1, 0.3), job(2, 0.2), job(3, 0.1)]
    for one in jobs:
        deadlines.watch(one)
    deadlines.start()
    until(lambda: len(sent.times) == 3, "three defaults")
    assert list(sent.times) == [3, 2, 1]
    deadlines.close()


def test_an_answer_after_the_deadline_is_late_even_where_the_timer_was_slower():
    sent = Sent()
    deadlines = Deadlines(sent)  # never started: the slowest of all timers
    late = job(3, -1)
    deadlines.watch(late)
    assert deadlines.finish(late) == 1003
    assert list(sent.times) == [3]


def test_a_late_answer_is_told_after_the_default_was_sent():
    """The default is being written to a slow disk while the answer comes."""
    begun, written = threading.Event(), threading.Event()

    def slow(_: Job) -> int:
        begun.set()
        assert written.wait(60)
        return 5

    deadlines = Deadlines(slow)
    deadlines.start()
    late = job(1, 0)
    deadlines.watch(late)
    assert begun.wait(60)
    found: list[int | None] = []
    finishing = threading.Thread(target=lambda: found.append(deadlines.finish(late)))
    finishing.start()
    other = job(2, 600)
    deadlines.watch(other)  # nobody else waits for that disk
    assert deadlines.finish(other) is None
    assert found == []
    written.set()
    finishing.join(60)
    assert found == [5]
    deadlines.close()


def test_pictures_are_let_go_before_the_deadline():
    deadlines = Deadlines(Sent())
    deadlines.start()
    one = job(1, 600)
    deadlines.watch(one)
    deadlines.finish(one)
    seen = weakref.ref(one.frame)
    del one
    gc.collect()
    assert seen() is None
    deadlines.close()


def test_a_clock_that_jumps_changes_nothing(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    sent = Sent()
    deadlines = Deadlines(sent)
    deadlines.start()
    soon, far = job(1, 0.05), job(2, 600)
    deadlines.watch(soon)
    deadlines.watch(far)
    until(lambda: sent.times, "the default")
    assert (deadlines.finish(soon), deadlines.finish(far)) == (1001, None)
    deadlines.close()
