"""Frames in, verdicts out: which are judged, when, and as what they are recorded. With judges that take their time."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from edgevlm.watch.service.jobs import Job
from edgevlm.watch.sinks.base import Delivery, Pending
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.polling import until
from tests.support.watching import FakeJudge, HangingSink, Line, frame, judgement


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: not [one for one in threading.enumerate() if one not in before], "threads have ended")


def test_on_a_live_source_the_newest_is_judged_and_none_is_old():
    """No answered frame is older than one frame interval plus one inference."""
    judge = FakeJudge(seconds=0.1)
    line = Line(judge)
    line.start()
    captured, waits = [], []
    for i in range(1, 61):
        shown = frame(i)
        captured.append(shown.captured)
        before = time.monotonic()
        line.take(shown)
        waits.append(time.monotonic() - before)
        time.sleep(0.01)
    records = line.finish()
    interval = max(after - before for before, after in pairwise(captured))
    scheduling = max(waits) + max(interval, judge.longest / 2)  # what this machine adds between two lines of Python
    oldest = (interval + judge.longest + scheduling) * 1e3
    followed = records[:-1]  # after the last no newer one came that could take its place
    assert [record.latency_ms for record in followed if record.latency_ms > oldest] == []
    assert len(records) < 30, "the source is faster than the judge"
    assert judge.seen == sorted(judge.seen)
    assert judge.seen[-1] == 60
    assert sum(record.dropped for record in records) == 60 - len(records)
    assert max(waits) < judge.longest, "the source waits for nobody"


def test_a_source_that_is_not_live_loses_no_frame():
    judge = FakeJudge(seconds=0.005)
    line = Line(judge, live=False)
    line.start()
    for i in range(1, 21):
        line.take(frame(i))
    records = line.finish()
    assert judge.seen == list(range(1, 21))
    assert [record.frame.sequence for record in records] == judge.seen
    assert {record.status for record in records} == {"in time"}
    assert [record.number for record in records] == list(range(1, 21))


def test_parts_that_asked_are_judged_in_turn_and_too_many_get_the_default_at_once():
    released = threading.Event()

    def slow(_):
        assert released.wait(60)
        return judgement("reject")

    line = Line(FakeJudge(slow), addressed=True, waiting=2)
    line.start()
    line.take(frame(1))
    until(lambda: not len(line.jobs), "the first is being judged")
    for i in (2, 3, 4, 5):
        line.take(frame(i))
    until(lambda: len(line.sink.records) == 2, "two defaults while the judge computes")
    released.set()
    found = [(record.frame.sequence, record.status, record.verdict) for record in line.finish()]
    assert found == [
        (4, "skipped", "unsure"),
        (5, "skipped", "unsure"),
        (1, "in time", "reject"),
        (2, "in time", "reject"),
        (3, "in time", "reject"),
    ]
    assert line.decisions.statuses == {"skipped": 2, "in time": 3}


def test_the_default_goes_to_every_sink_at_the_deadline_and_the_answer_is_late():
    released = threading.Event()

    def slow(_):
        assert released.wait(60)
        return judgement("reject")

    line = Line(FakeJudge(slow), deadline_ms=50)
    line.start()
    shown = frame(1)
    line.take(shown)
    until(lambda: line.sink.records, "the default, while the judge computes")
    assert line.sink.times[0] >= shown.captured + 0.05
    released.set()
    default, late = line.finish()
    assert (default.status, default.verdict, default.answers, default.late_for) == ("default", "unsure", (), None)
    assert (late.status, late.verdict, late.late_for) == ("late", "reject", default.number)
    assert late.previous == default.sha256
    assert [type(one) for one in line.sink.told] == [Pending, Delivery, Delivery]
    assert line.decisions.verdicts == {"unsure": 1}, "sinks acted on the default alone"


def test_a_part_that_waits_has_its_deadline_too_and_is_not_judged_when_others_wait():
    released = threading.Event()

    def slow(_):
        assert released.wait(60)
        return judgement("reject")

    judge = FakeJudge(slow)
    line = Line(judge, addressed=True, deadline_ms=50)
    line.start()
    for i in (1, 2, 3):
        line.take(frame(i))
    until(lambda: len(line.sink.records) == 3, "three defaults")
    released.set()
    records = line.finish()
    assert [(one.frame.sequence, one.status) for one in records[:3]] == [(1, "default"), (2, "default"), (3, "default")]
    assert [(one.frame.sequence, one.late_for) for one in records[3:]] == [(1, 1), (3, 3)]
    assert judge.seen == [1, 3]
    assert line.status.snapshot().counters["late_not_judged"] == 1


def test_a_frame_that_nobody_asked_for_and_that_waited_too_long_is_judged_all_the_same():
    """Its deadline passes before its turn, and a newer one waits by then: nobody was promised a verdict on it."""
    line = Line(FakeJudge(), deadline_ms=1)
    take = line.jobs.take

    def slow_take(timeout):
        job = take(timeout)
        if job is not None and job.frame.sequence == 1:
            line.take(frame(2))
        return job

    line.jobs.take = slow_take
    line.take(frame(1, captured=time.monotonic() - 1))
    line.start()
    until(lambda: 2 in [one.frame.sequence for one in line.sink.records], "the newer one")
    assert [(one.frame.sequence, one.status) for one in line.finish() if one.frame.sequence == 1] == [
        (1, "default"),
        (1, "late"),
    ]


def test_whoever_asked_before_there_was_a_frame_has_waited_since_then():
    line = Line(FakeJudge(), addressed=True, deadline_ms=60_000)
    asked = Firing("test", "part 7", addressed=True, fired=time.monotonic() - 61)
    line.intake._trigger.fire = lambda _: asked
    line.start()
    line.take(frame(1))
    records = line.finish()
    assert [(one.status, one.trigger_text) for one in records] == [("default", "part 7"), ("late", "part 7")]


def test_the_board_has_records_in_their_order_whoever_is_held_up():
    """The timer's default and the judge's answer come at the same time, from two threads."""
    line = Line(FakeJudge())
    begun, released = threading.Event(), threading.Event()

    class HeldUp(Status):
        def count(self, name: str, by: int = 1) -> None:
            if threading.current_thread() is first:
                begun.set()
                assert released.wait(60)
            super().count(name, by)

    line.decisions._status = HeldUp()
    first = threading.Thread(target=line.decisions.default, args=(Job(frame(1), Firing("test")),))
    first.start()
    assert begun.wait(60)
    line.decisions.answer(Job(frame(2), Firing("test")), judgement(), None)
    released.set()
    first.join(60)
    assert [one.number for one in line.board.records()] == [1, 2]


def test_with_a_deadline_a_picture_of_a_file_does_not_grow_old_while_it_waits():
    """Each inference is shorter than the deadline, two are not."""
    judge = FakeJudge(seconds=0.2)
    line = Line(judge, live=False, deadline_ms=60_000)
    line.start()
    for i in range(1, 6):
        line.take(frame(i))
        assert judge.seen == list(range(1, i + 1)), "it was judged before the next is read"
    assert {record.status for record in line.finish()} == {"in time"}


def test_a_judge_that_fails_gives_unsure_and_the_watch_goes_on():
    def odd(asked):
        if asked.sequence == 2:
            raise EdgeVLMError("the mask is for frames of another size")
        if asked.sequence == 3:
            raise ZeroDivisionError
        return judgement("accept")

    line = Line(FakeJudge(odd), live=False)
    line.start()
    for i in (1, 2):
        line.take(frame(i))
    until(lambda: not line.status.healthy, "the condition")
    assert [one.name for one in line.status.snapshot().conditions] == ["judging"]
    for i in (3, 4):
        line.take(frame(i))
    records = line.finish()
    assert [record.verdict for record in records] == ["accept", "unsure", "unsure", "accept"]
    assert records[1].answers[0].error == "the mask is for frames of another size"
    assert records[2].answers[0].error == "ZeroDivisionError"
    assert line.status.healthy
    assert line.status.snapshot().counters["judging_failed"] == 2


def test_as_many_frames_as_were_wanted():
    judge = FakeJudge()
    line = Line(judge, live=False, max_frames=3)
    line.start()
    feeding = threading.Thread(target=lambda: [line.take(frame(i)) for i in range(1, 10)])
    feeding.start()
    line.judging.join(60)
    line.jobs.clear()
    feeding.join(60)
    assert [record.frame.sequence for record in line.finish()] == [1, 2, 3]


def test_a_sink_that_hangs_delays_no_verdict():
    hangs = HangingSink()
    line = Line(FakeJudge(), live=False, sinks={"hangs": hangs})
    line.start()
    for i in range(1, 51):
        line.take(frame(i))
    until(lambda: len(line.sink.records) == 50, "all verdicts at the other sink")
    hangs.released.set()
    line.finish()
    assert len(hangs.records) == 50


def test_a_clock_that_jumps_moves_no_deadline_and_no_latency(monkeypatch):
    judge = FakeJudge(seconds=0.01)
    line = Line(judge, live=False, deadline_ms=60_000)
    line.start()
    line.take(frame(1))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    line.take(frame(2))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    line.take(frame(3))
    records = line.finish()
    assert {record.status for record in records} == {"in time"}
    assert all(10 <= record.latency_ms < 60_000 for record in records)
