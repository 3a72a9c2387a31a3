"""Verdicts into the registers of a PLC, by Modbus TCP.

    verdict     code of the verdict: 1, 2, ... in the plan's order, or `codes`; 0: none yet
    sequence    low 16 bits of the record's number; with the verdict in one request where the two are adjacent, so that
                who sees a new one finds its verdict
    pending     1 while a part is judged
    heartbeat   counts about once a second; ready: 1 while the watch is well

A PLC is told the state, not the history: a verdict that it could not be given within `keep_s` is dropped and counted,
since it would be taken for another part's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgevlm.watch.links.modbus import HIGHEST, Device, ModbusLink
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.sinks.latest import Latest, check_keep, codes_of
from edgevlm.watch.sinks.messages import LATE
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

REGISTERS = ("verdict", "sequence", "pending", "heartbeat", "ready")
COILS = ("pending", "ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Device):
    """Where the PLC is, and which registers are written."""

    verdict_register: int = 0
    sequence_register: int = 1
    pending_register: int | None = 2
    heartbeat_register: int | None = 3
    ready_register: int | None = 4
    """None writes none of these three."""
    pending_coil: int | None = None
    ready_coil: int | None = None
    """Coils, beside or instead of the registers."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Verdict to code, for all or none; none: 1, 2, ... in the plan's order."""
    keep_s: float = 2.0
    """How long a verdict waits for a PLC that cannot be reached."""

    def __post_init__(self) -> None:
        Device.__post_init__(self)
        places = {f"{name}_register": getattr(self, f"{name}_register") for name in REGISTERS}
        coils = {f"{name}_coil": getattr(self, f"{name}_coil") for name in COILS}
        for name, place in [*places.items(), *coils.items()]:
            need(place is None or 0 <= place <= HIGHEST, name, place, f"from 0 to {HIGHEST}")
        for kind in (places, coils):
            given = [place for place in kind.values() if place is not None]
            for name, place in kind.items():
                need(given.count(place) <= 1, name, place, "a place that nothing else is written to")
        check_keep(self.keep_s)


class ModbusSink:
    """Writes what is new; what cannot be written is tried again at the next beat."""

    def __init__(self, options: Options, about: About, codes: Mapping[str, int]) -> None:
        self._options, self._about, self._codes = options, about, codes
        self._link: ModbusLink | None = None
        none_yet = {"verdict": 0, "sequence": 0, "pending": 0}
        self._latest = Latest("modbus", about.status, options.keep_s, none_yet)
        self._heartbeat = 0

    def start(self) -> None:
        """Say that there is no verdict yet. A PLC that cannot be reached is a condition, and tried again."""
        self._latest.write(self._write_all)

    def pending(self, pending: Pending) -> None:
        """Set pending."""
        self._latest.set(pending=1)
        self._latest.write(self._write_all)

    def deliver(self, delivery: Delivery) -> None:
        """Write the verdict and its number, and clear pending. A late one is not the state, and is not written."""
        record = delivery.record
        if record.status == LATE:
            return
        self._latest.set(pending=0)
        code = self._codes[record.verdict]
        self._latest.set_verdict(delivery.made, verdict=code, sequence=record.number & 0xFFFF)
        self._latest.write(self._write_all)

    def beat(self, healthy: bool) -> None:
        """Count the heartbeat, say whether we are ready, and try what could not be written."""
        self._heartbeat = (self._heartbeat + 1) & 0xFFFF
        self._latest.set(heartbeat=self._heartbeat, ready=int(healthy))
        self._latest.write(self._write_all)

    def close(self) -> None:
        """Say that we are not ready, where the PLC is there."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            if link.connected:
                self._write(link, {"pending": 0, "ready": 0})
        except EdgeVLMError:
            self._about.status.count("sink_modbus_failed")
        link.close()

    def _write_all(self, values: Mapping[str, int]) -> None:
        if self._link is None:
            self._link = ModbusLink(self._options)
        self._write(self._link, values)

    def _write(self, link: ModbusLink, values: Mapping[str, int]) -> None:
        """Adjacent registers in one request, the sequence last. Raises `EdgeVLMError`."""
        options = self._options
        places = {name: getattr(options, f"{name}_register") for name in values}
        registers = {place: values[name] for name, place in places.items() if place is not None}
        runs = sorted(_runs(registers), key=lambda run: places.get("sequence") in run)
        for run in runs:
            link.write_registers(run.start, [registers[place] for place in run])
        for name in COILS:
            place = getattr(options, f"{name}_coil")
            if name in values and place is not None:
                link.write_coil(place, bool(values[name]))


def make_sink(options: Options, about: About) -> ModbusSink:
    """The sink; nothing is touched yet. Raises `EdgeVLMError` when a verdict has no code."""
    codes = codes_of(about.verdicts, options.codes, HIGHEST)
    return ModbusSink(options, about, codes)


def _runs(places: Mapping[int, int]) -> list[range]:
    """Places that follow one another, together."""
    runs: list[range] = []
    for place in sorted(places):
        if runs and runs[-1].stop == place:
            runs[-1] = range(runs[-1].start, place + 1)
        else:
            runs.append(range(place, place + 1))
    return runs
