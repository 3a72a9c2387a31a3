"""Against pymodbus's own server, whose coils are set by a client of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgevlm.watch.status import Status
from edgevlm.watch.triggers.modbus import ModbusTrigger, Options, make_trigger
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import frame
from tests.support.plc import Plc
from tests.support.polling import until


@contextmanager
def looking(plc: Plc, **options) -> Iterator[tuple[ModbusTrigger, Status]]:
    status = Status()
    made = Options(host="127.0.0.1", port=plc.port, timeout_s=10, coil=3, interval_s=0.005, **options)
    trigger = make_trigger(made, status)
    trigger.start()
    try:
        yield trigger, status
    finally:
        trigger.close()


def seen(trigger: ModbusTrigger, on: bool) -> None:
    until(lambda: trigger._on is on, f"the coil was seen {'on' if on else 'off'}")


def test_a_rising_edge_fires_once_with_the_parts_number(tmp_path):
    with Plc() as plc:
        plc.set_registers(10, [0x0001, 0x86A0])
        plc.set_coil(3, True)
        with looking(plc, text_register=10, text_count=2) as (trigger, _):
            seen(trigger, True)
            assert trigger.fire(frame()) is None  # on since before: no edge
            for number in (100000, 100001):
                plc.set_coil(3, False)
                seen(trigger, False)
                plc.set_registers(10, [number >> 16, number & 0xFFFF])
                plc.set_coil(3, True)
                firing = until(lambda: trigger.fire(frame()), "it fires")
                assert (firing.kind, firing.text, firing.addressed) == ("modbus", str(number), True)
            time.sleep(0.1)
            assert trigger.fire(frame()) is None
            assert plc.coil(3)


def test_with_reset_the_coil_is_switched_off(tmp_path):
    with Plc() as plc:
        plc.set_registers(10, [0x4142, 0x3700, 0x5858])
        plc.set_coil(3, True)
        with looking(plc, reset=True, text_register=10, text_count=3, text_form="ascii") as (trigger, _):
            assert until(lambda: trigger.fire(frame()), "it fires").text == "AB7"
            until(lambda: not plc.coil(3), "switched off")
            plc.set_coil(3, True)
            assert until(lambda: trigger.fire(frame()), "it fires again").text == "AB7"
            until(lambda: not plc.coil(3), "switched off again")
            assert trigger.fire(frame()) is None


def test_where_there_is_no_room_the_coil_stays_on():
    with Plc() as plc, looking(plc, reset=True) as (trigger, status):
        for _ in range(64):
            plc.set_coil(3, True)
            until(lambda: not plc.coil(3), "switched off")
        plc.set_coil(3, True)
        until(lambda: status.snapshot().counters.get("trigger_modbus_dropped"), "no room")
        assert plc.coil(3)
        assert trigger.fire(frame()) is not None
        until(lambda: not plc.coil(3), "taken after all")


def test_it_comes_back_when_the_plc_does():
    plc = Plc()
    with looking(plc, reset=True) as (trigger, status):
        until(lambda: [one for one in status.snapshot().conditions if one.bad], "the condition")
        plc.start()
        until(lambda: not status.snapshot().conditions, "well")
        plc.set_coil(3, True)
        until(lambda: trigger.fire(frame()), "it fires")
        plc.stop()
        until(lambda: "unreachable" in "".join(one.text for one in status.snapshot().conditions), "gone")
        plc.start()
        until(lambda: not status.snapshot().conditions, "well again")
        assert trigger.fire(frame()) is None
        plc.set_coil(3, True)
        until(lambda: trigger.fire(frame()), "it fires again")
    plc.stop()


def test_a_coil_that_the_plc_does_not_have_is_said():
    with Plc() as plc, looking(plc, text_register=0) as (_, status):
        other = Status()
        trigger = make_trigger(Options(host="127.0.0.1", port=plc.port, coil=5000, timeout_s=10), other)
        trigger.start()
        until(lambda: "illegal address" in "".join(one.text for one in other.snapshot().conditions), "said")
        trigger.close()
        assert not status.snapshot().conditions


def test_a_plc_that_hangs_does_not_hold_the_end_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        trigger = make_trigger(Options(host="127.0.0.1", port=silent.getsockname()[1], coil=0, timeout_s=0.3), Status())
        trigger.start()
        begun = time.monotonic()
        trigger.close()
        trigger.close()
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"coil": -1}, "bad value for coil"),
        ({"coil": 1, "interval_s": 0}, "bad value for interval_s"),
        ({"coil": 1, "text_count": 0}, "bad value for text_count"),
        ({"coil": 1, "text_form": "utf-8"}, "bad value for text_form: 'utf-8': it must be 'number' or 'ascii'"),
        ({"coil": 1, "host": "a b"}, "bad value for host"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(EdgeVLMError, match=said):
        Options(**{"host": "plc", **options})
