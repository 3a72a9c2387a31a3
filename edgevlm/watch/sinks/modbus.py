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

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgevlm.watch.links.modbus import HIGHEST, Device, ModbusLink
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.sinks.messages import LATE
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

CONNECTION = "sink modbus connection"
AGAIN_S = 1.0
"""Pause after a request that failed."""
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
        for verdict, code in self.codes.items():
            need(1 <= code <= HIGHEST, f"codes.{verdict}", code, f"from 1 to {HIGHEST}")
        need(0 <= self.keep_s <= 3600, "keep_s", self.keep_s, "from 0 to 3600 seconds")


class ModbusSink:
    """What is to be written is kept by name until it is."""

    def __init__(self, options: Options, about: About, codes: Mapping[str, int]) -> None:
        self._options, self._about, self._codes = options, about, codes
        self._link: ModbusLink | None = None
        self._unwritten = {"verdict": 0, "sequence": 0, "pending": 0}
        self._verdict_until: float | None = None
        self._heartbeat = 0
        self._again_at = 0.0

    def start(self) -> None:
        """Say that there is no verdict yet. A PLC that cannot be reached is a condition, and tried again."""
        self._flush()

    def pending(self, pending: Pending) -> None:
        """Set pending."""
        self._unwritten["pending"] = 1
        self._flush()

    def deliver(self, delivery: Delivery) -> None:
        """Write the verdict and its number, and clear pending. A late one is not the state, and is not written."""
        record = delivery.record
        if record.status == LATE:
            return
        if self._verdict_until is not None:
            self._about.status.count("sink_modbus_dropped")
        self._unwritten |= {"verdict": self._codes[record.verdict], "sequence": record.number & 0xFFFF, "pending": 0}
        self._verdict_until = delivery.made + self._options.keep_s
        self._flush()

    def beat(self, healthy: bool) -> None:
        """Count the heartbeat, say whether we are ready, and try what could not be written."""
        self._heartbeat = (self._heartbeat + 1) & 0xFFFF
        self._unwritten |= {"heartbeat": self._heartbeat, "ready": int(healthy)}
        self._flush()

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

    def _flush(self) -> None:
        """Write what is not written yet; what fails stays, and is said."""
        self._give_up_old()
        if time.monotonic() < self._again_at:
            return
        status = self._about.status
        try:
            if self._link is None:
                self._link = ModbusLink(self._options)
            self._write(self._link, self._unwritten)
        except EdgeVLMError as error:
            self._again_at = time.monotonic() + AGAIN_S
            status.count("sink_modbus_failed")
            status.raise_condition(CONNECTION, str(error))
            return
        if self._verdict_until is not None:
            status.count("sink_modbus_delivered")
        self._unwritten, self._verdict_until = {}, None
        status.clear_condition(CONNECTION)

    def _give_up_old(self) -> None:
        if self._verdict_until is not None and time.monotonic() > self._verdict_until:
            self._about.status.count("sink_modbus_dropped")
            self._verdict_until = None
            del self._unwritten["verdict"], self._unwritten["sequence"]

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
    codes = dict(options.codes) or {verdict: number for number, verdict in enumerate(about.verdicts, 1)}
    missing = [verdict for verdict in about.verdicts if verdict not in codes]
    need(not missing, "codes", dict(options.codes), f"a code for every verdict: {', '.join(missing)} has none")
    unknown = [verdict for verdict in codes if verdict not in about.verdicts]
    need(not unknown, "codes", ", ".join(unknown), f"verdicts of the plan: {', '.join(about.verdicts)}")
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
