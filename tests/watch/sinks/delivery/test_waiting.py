"""The bounds of what waits for a sink."""

from edgevlm.watch.sinks.base import Delivery, Pending
from edgevlm.watch.sinks.delivery.waiting import Waiting
from tests.support.watching import delivery, frame

SIDE = 100
BYTES = SIDE * SIDE * 3


def drained(waiting: Waiting) -> list[Delivery | Pending]:
    found = []
    while (entry := waiting.take()) is not None:
        found.append(entry)
    return found


def notice(sequence: int) -> Pending:
    return Pending(frame(sequence, SIDE), "test")


def test_above_the_number_notices_go_first_then_the_oldest_verdict():
    waiting = Waiting(most=3)
    lost = [waiting.put(one) for one in (delivery(1), notice(2), delivery(3), delivery(4), delivery(5))]
    assert lost == [0, 0, 0, 0, 1]
    assert [one.frame.sequence for one in drained(waiting)] == [3, 4, 5]


def test_above_the_bytes_the_oldest_give_up_what_they_hold():
    earlier = tuple(frame(100 + i, SIDE) for i in range(3))
    waiting = Waiting(most_bytes=3 * BYTES)
    waiting.put(delivery(1, SIDE, earlier))
    assert waiting.held_bytes == 4 * BYTES, "the newest keeps all it has"
    waiting.put(delivery(2, SIDE))
    assert waiting.held_bytes == 2 * BYTES, "the oldest has lost the frames before it"
    waiting.put(delivery(3, SIDE))
    waiting.put(delivery(4, SIDE))
    assert waiting.held_bytes == 3 * BYTES
    first, *others = drained(waiting)
    assert isinstance(first, Delivery)
    assert (first.has_picture, first.before, first.frame.sequence, first.record.frame.width) == (False, (), 1, SIDE)
    assert all(isinstance(one, Delivery) and one.has_picture for one in others)
    assert waiting.held_bytes == 0


def test_frames_that_verdicts_share_count_once():
    earlier = tuple(frame(100 + i, SIDE) for i in range(10))
    waiting = Waiting(most_bytes=14 * BYTES)
    for i in range(4):
        waiting.put(delivery(i, SIDE, earlier))
    assert waiting.held_bytes == 14 * BYTES
    assert all(isinstance(one, Delivery) and len(one.before) == 10 for one in drained(waiting))


def test_the_bound_holds_with_notices_alone():
    waiting = Waiting(most_bytes=2 * BYTES)
    for i in range(10):
        waiting.put(notice(i))
    assert waiting.held_bytes == 2 * BYTES
    assert (waiting.verdicts, [one.frame.sequence for one in drained(waiting)]) == (0, [8, 9])
