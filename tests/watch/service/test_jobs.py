"""What waits for the judge."""

import threading

from edgevlm.watch.service.jobs import Job, Jobs
from edgevlm.watch.triggers.base import Firing
from tests.support.polling import until
from tests.support.watching import frame

SIDE = 100
BYTES = SIDE * SIDE * 3


def job(sequence: int, addressed: bool = False, before: int = 0) -> Job:
    earlier = tuple(frame(sequence * 100 + i, SIDE) for i in range(before))
    return Job(frame(sequence, SIDE), Firing("test", addressed=addressed), earlier)


def sequences(jobs: Jobs) -> list[int]:
    taken = []
    while (one := jobs.take(0)) is not None:
        taken.append(one.frame.sequence)
    return taken


def test_a_newer_frame_takes_the_place_of_one_that_nobody_asked_for():
    jobs = Jobs(live=True, waiting=8)
    assert [jobs.put(job(i)) for i in (1, 2, 3)] == [True, True, True]
    assert sequences(jobs) == [3]
    assert jobs.dropped() == 2
    assert jobs.dropped() == 0


def test_frames_that_were_asked_for_wait_in_order_and_go_first():
    jobs = Jobs(live=True, waiting=2)
    assert jobs.put(job(1))
    assert [jobs.put(job(i, addressed=True)) for i in (2, 3, 4)] == [True, True, False]
    assert sequences(jobs) == [2, 3, 1]
    assert jobs.dropped() == 0


def test_memory_is_bounded_whatever_the_number():
    jobs = Jobs(live=True, waiting=100, most_bytes=4 * BYTES)
    assert jobs.put(job(1, addressed=True, before=1))
    wide = job(2, addressed=True, before=3)
    slim = jobs.fitted(wide)
    assert (len(wide.before), slim.before) == (3, ())
    assert jobs.put(slim)
    assert jobs.put(job(3, addressed=True))
    assert not jobs.put(job(4, addressed=True)), "a fifth picture"
    assert jobs.fitted(job(5, before=9)).before, "one that nobody asked for has a place of its own"


def test_one_that_is_too_large_alone_is_taken_all_the_same():
    jobs = Jobs(live=True, waiting=2, most_bytes=1)
    assert jobs.put(job(1, addressed=True))
    assert not jobs.put(job(2, addressed=True))


def test_a_source_that_is_not_live_reads_none_while_one_is_judged():
    jobs = Jobs(live=False, waiting=8)
    put: list[int] = []

    def fill() -> None:
        for i in range(1, 4):
            jobs.put(job(i))
            put.append(i)
        jobs.close()

    filling = threading.Thread(target=fill)
    filling.start()
    for i in (1, 2, 3):
        taken = jobs.take(60)
        assert taken is not None
        assert taken.frame.sequence == i
        assert put == list(range(1, i)), "this one is being judged"
    assert jobs.take(60) is None
    filling.join(60)
    assert (put, jobs.finished, jobs.dropped()) == ([1, 2, 3], True, 0)


def test_the_end():
    jobs = Jobs(live=True, waiting=8)
    jobs.put(job(1, addressed=True))
    jobs.put(job(2))
    assert [one.frame.sequence for one in jobs.clear()] == [1]
    assert jobs.finished
    assert jobs.put(job(3))
    assert not jobs.put(job(4, addressed=True)), "whoever asked is told"
    assert jobs.take(60) is None
    assert jobs.dropped() == 2


def test_the_end_wakes_a_source_that_waits():
    jobs = Jobs(live=False, waiting=1)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(jobs.put(job(1))))
    waiting.start()
    until(lambda: len(jobs), "it waits")
    jobs.clear()
    waiting.join(60)
    assert not waiting.is_alive()
    assert answers == [True]
