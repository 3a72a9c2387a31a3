"""Sinks that hang, fail and are slow keep nobody but themselves."""

import threading
import time

import pytest

from edgevlm.watch.sinks.base import Delivery, Pending
from edgevlm.watch.sinks.delivery import line
from edgevlm.watch.sinks.delivery.outlet import Outlet
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.polling import until
from tests.support.watching import HangingSink, ListSink, delivery, frame

FOREVER = 60.0


def outlet(status: Status, **sinks: ListSink) -> Outlet:
    made = Outlet(sinks, status, lambda: True)
    made.start()
    return made


def conditions(status: Status) -> dict[str, str]:
    return {one.name: one.text for one in status.snapshot().conditions}


def test_every_sink_gets_everything_in_order():
    status, first, second = Status(), ListSink(), ListSink()
    out = outlet(status, a=first, b=second)
    sent = [delivery(i) for i in range(50)]
    for one in sent:
        out.deliver(one)
    assert out.close(FOREVER) == {}
    assert first.told == sent
    assert second.told == sent
    assert first.closed.is_set()
    assert status.snapshot().counters == {"sink_sent.a": 50, "sink_sent.b": 50}


def test_a_sink_that_hangs_holds_up_neither_verdicts_nor_the_end(monkeypatch):
    monkeypatch.setattr(line, "HANGS_S", 0.01)
    status, hangs, well = Status(), HangingSink(), ListSink()
    out = outlet(status, hangs=hangs, well=well)
    for i in range(20):
        out.deliver(delivery(i))
    until(lambda: len(well.told) == 20, "the other sink has all")

    def shown() -> bool:
        out.check()
        return "has not come back" in conditions(status).get("sink hangs", "")

    until(shown, "the condition")
    assert not status.healthy
    begun = time.monotonic()
    left = out.close(0.5)
    assert time.monotonic() - begun < FOREVER
    assert left == {"hangs": 20}
    assert well.closed.is_set()
    hangs.released.set()
    assert hangs.closed.wait(FOREVER)


def test_a_sink_that_comes_back_has_lost_nothing(monkeypatch):
    monkeypatch.setattr(line, "HANGS_S", 0.01)
    status, hangs = Status(), HangingSink()
    out = outlet(status, hangs=hangs)
    for i in range(20):
        out.deliver(delivery(i))
    until(lambda: out.check() or conditions(status), "the condition")
    hangs.released.set()
    until(lambda: not conditions(status), "well again")
    assert out.close(FOREVER) == {}
    assert [one.frame.sequence for one in hangs.told] == list(range(20))


class Away(ListSink):
    """Cannot start before it is said."""

    def __init__(self) -> None:
        super().__init__()
        self.there = False
        self.attempts = 0

    def start(self) -> None:
        self.attempts += 1
        if not self.there:
            raise EdgeVLMError("nobody there: connection refused")


def test_a_start_that_fails_is_tried_again_and_verdicts_wait(monkeypatch):
    monkeypatch.setattr(line, "FIRST_PAUSE_S", 0.01)
    status, away = Status(), Away()
    out = outlet(status, away=away)
    out.deliver(delivery(1))
    until(lambda: away.attempts >= 3, "attempts")
    assert conditions(status) == {"sink away": "nobody there: connection refused"}
    assert away.told == []
    away.there = True
    until(lambda: len(away.told) == 1, "the verdict that waited")
    assert conditions(status) == {}
    assert out.close(FOREVER) == {}


def test_a_start_that_never_succeeds_does_not_hold_up_the_end():
    status, away = Status(), Away()
    out = outlet(status, away=away)
    out.deliver(delivery(1))
    until(lambda: away.attempts, "an attempt")
    assert out.close(FOREVER) == {"away": 1}
    assert away.closed.is_set()


class Refusing(ListSink):
    """Raises for odd verdicts, what no sink should."""

    def deliver(self, delivery: Delivery) -> None:
        if delivery.frame.sequence % 2:
            raise ZeroDivisionError("odd")
        super().deliver(delivery)


def test_what_a_sink_raises_is_counted_and_shown_until_it_goes_well():
    status, odd = Status(), Refusing()
    out = outlet(status, odd=odd)
    out.deliver(delivery(1))
    until(lambda: conditions(status) == {"sink odd": "odd"}, "the condition")
    out.deliver(delivery(2))
    until(lambda: not conditions(status), "well again")
    out.deliver(delivery(3))
    assert out.close(FOREVER) == {"odd": 2}
    counters = status.snapshot().counters
    assert (counters["sink_failed.odd"], counters["sink_sent.odd"]) == (2, 1)


def test_a_beat_that_goes_well_does_not_hide_a_verdict_that_failed(monkeypatch):
    monkeypatch.setattr(line, "BEAT_S", 0.01)
    status, odd = Status(), Refusing()
    out = outlet(status, odd=odd)
    out.deliver(delivery(1))
    until(lambda: conditions(status), "the condition")
    beats = odd.beats
    until(lambda: odd.beats > beats + 3, "beats")
    assert conditions(status) == {"sink odd": "odd"}
    out.close(FOREVER)


def test_beats_say_whether_all_is_well(monkeypatch):
    monkeypatch.setattr(line, "BEAT_S", 0.01)
    heard: list[bool] = []

    class Hears(ListSink):
        def beat(self, healthy: bool) -> None:
            heard.append(healthy)

    well = threading.Event()
    out = Outlet({"a": Hears()}, Status(), well.is_set)
    out.start()
    until(lambda: False in heard, "not healthy")
    well.set()
    until(lambda: True in heard, "healthy")
    out.close(FOREVER)


def test_a_notice_whose_verdict_waits_already_is_left_out():
    """A PLC would see a part pending for ever that was judged long ago."""
    status, slow = Status(), HangingSink()
    out = outlet(status, slow=slow)
    out.deliver(delivery(1))
    until(lambda: not out._lines[0]._waiting, "the sink is busy")
    for i in (2, 3):
        shown = delivery(i)
        out.pending(Pending(shown.frame, "test"))
        out.deliver(shown)
    out.pending(Pending(frame(4), "test"))
    slow.released.set()
    until(lambda: len(slow.told) == 4, "all told")
    assert [(type(one), one.frame.sequence) for one in slow.told] == [
        (Delivery, 1),
        (Delivery, 2),
        (Delivery, 3),
        (Pending, 4),
    ]
    out.close(FOREVER)


@pytest.mark.parametrize("started", [True, False])
def test_closing_needs_no_start(started):
    sink = ListSink()
    out = Outlet({"a": sink}, Status(), lambda: True)
    if started:
        out.start()
    assert out.close(FOREVER) == {}
