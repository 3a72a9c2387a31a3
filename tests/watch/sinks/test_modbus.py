"""Against pymodbus's own server, read by a client of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgevlm.watch.sinks import latest
from edgevlm.watch.sinks.modbus import ModbusSink, Options, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import about, condition, counter, delivery, pending
from tests.support.plc import Plc
from tests.support.polling import until

NAME = "sink modbus connection"


@contextmanager
def sink_to(plc: Plc, watch, **options) -> Iterator[ModbusSink]:
    sink = make_sink(Options(host="127.0.0.1", port=plc.port, unit=plc.unit, timeout_s=10, **options), watch)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(latest, "AGAIN_S", 0.0)


def test_a_part_in_registers(tmp_path):
    watch = about(tmp_path)
    with Plc(unit=7) as plc:
        with sink_to(plc, watch) as sink:
            assert plc.registers(0, 5) == [0, 0, 0, 0, 0]
            sink.beat(True)
            assert plc.registers(0, 5) == [0, 0, 0, 1, 1]
            sink.pending(pending())
            assert plc.registers(0, 5) == [0, 0, 1, 1, 1]
            sink.deliver(delivery(65538, "unsure"))
            assert plc.registers(0, 5) == [3, 2, 0, 1, 1]
            sink.deliver(delivery(65539, "reject", status="late"))
            assert plc.registers(0, 5) == [3, 2, 0, 1, 1]
            sink.beat(False)
            assert plc.registers(0, 5) == [3, 2, 0, 2, 0]
            sink.beat(True)
        assert plc.registers(0, 5) == [3, 2, 0, 3, 0]  # at the end not ready
        assert (0, [3, 2, 0]) in plc.writes  # verdict and sequence in one request
    assert counter(watch, "sink_modbus_delivered") == 1
    assert watch.status.snapshot().conditions == ()


def test_places_that_are_not_adjacent_and_coils(tmp_path):
    places = {"verdict_register": 20, "sequence_register": 10, "heartbeat_register": None, "ready_register": None}
    coils = {"pending_register": None, "pending_coil": 5, "ready_coil": 9}
    with Plc() as plc, sink_to(plc, about(tmp_path), **places, **coils) as sink:
        sink.beat(True)
        sink.pending(pending())
        assert (plc.coil(5), plc.coil(9)) == (True, True)
        plc.writes.clear()
        sink.deliver(delivery(4, "reject"))
        assert plc.writes == [(20, [1]), (10, [4])]  # the sequence last: who sees it finds its verdict
        assert not plc.coil(5)


def test_the_heartbeat_wraps(tmp_path):
    with Plc() as plc, sink_to(plc, about(tmp_path)) as sink:
        sink._heartbeat = 0xFFFE
        for expected in (0xFFFF, 0, 1):
            sink.beat(True)
            assert plc.registers(3) == [expected]


def test_codes_of_the_plan(tmp_path):
    codes = {"accept": 100, "reject": 200, "unsure": 300}
    with Plc() as plc, sink_to(plc, about(tmp_path), codes=codes) as sink:
        for verdict, code in codes.items():
            sink.deliver(delivery(1, verdict))
            assert plc.registers(0) == [code]


def test_a_plc_that_was_away_gets_the_verdict_that_is_fresh(tmp_path):
    watch = about(tmp_path)
    plc = Plc()
    plc.start()
    with sink_to(plc, watch, keep_s=60) as sink:
        sink.beat(True)
        plc.stop()
        sink.deliver(delivery(1, "reject"))
        assert f"127.0.0.1:{plc.port} is unreachable" in condition(watch, NAME)
        sink.deliver(delivery(2, "accept"))
        assert counter(watch, "sink_modbus_dropped") == 1
        plc.start()
        sink.beat(True)
        assert plc.registers(0, 5) == [2, 2, 0, 2, 1]
        assert condition(watch, NAME) == ""
        assert counter(watch, "sink_modbus_delivered") == 1
    plc.stop()


def test_a_verdict_that_is_too_old_is_not_taken_for_another_parts(tmp_path):
    watch = about(tmp_path)
    plc = Plc()
    with sink_to(plc, watch, keep_s=0.1) as sink:
        sink.deliver(delivery(1, "reject"))
        time.sleep(0.2)
        plc.start()
        sink.beat(True)
        assert plc.registers(0, 5) == [0, 0, 0, 1, 1]
        assert counter(watch, "sink_modbus_dropped") == 1
        assert counter(watch, "sink_modbus_delivered") == 0
    plc.stop()


def test_addresses_that_the_plc_does_not_have_are_said(tmp_path):
    watch = about(tmp_path)
    with Plc() as plc, sink_to(plc, watch, verdict_register=500, sequence_register=501) as sink:
        sink.deliver(delivery(1))
        assert "illegal address): compare its addresses with the plan's" in condition(watch, NAME)


def test_a_plc_that_hangs_does_not_hold_the_end_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        watch = about(tmp_path)
        sink = make_sink(Options(host="127.0.0.1", port=silent.getsockname()[1], timeout_s=0.3), watch)
        begun = time.monotonic()
        sink.start()
        sink.deliver(delivery(1))
        sink.beat(True)
        sink.close()
        sink.close()
        assert time.monotonic() - begun < 20
        assert condition(watch, NAME)


def test_an_unreachable_plc_costs_little_time(tmp_path, monkeypatch):
    monkeypatch.setattr(latest, "AGAIN_S", 60.0)
    watch = about(tmp_path)
    sink = make_sink(Options(host="127.0.0.1", port=1), watch)
    for number in range(20):
        sink.deliver(delivery(number))
    assert counter(watch, "sink_modbus_failed") == 1
    sink.close()
    until(lambda: condition(watch, NAME), "said")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "http://plc"}, "bad value for host"),
        ({"unit": 256}, "bad value for unit"),
        ({"verdict_register": 1}, "bad value for verdict_register"),
        ({"pending_register": 70000}, "bad value for pending_register"),
        ({"pending_coil": 1, "ready_coil": 1}, "bad value for pending_coil"),
        ({"codes": {"accept": 0}}, "bad value for codes.accept"),
        ({"codes": {"accept": 1}}, "bad value for codes: .*reject, unsure has none"),
        ({"codes": {"accept": 1, "reject": 2, "unsure": 3, "fine": 4}}, "bad value for codes: 'fine'"),
    ],
)
def test_bad_options_are_one_line(tmp_path, options, said):
    with pytest.raises(EdgeVLMError, match=said):
        make_sink(Options(**{"host": "plc", **options}), about(tmp_path))
