"""A coil of a PLC asks for a verdict, by Modbus TCP; registers beside it may hold the part's number.

Without `reset` the coil's rising edge counts: it has to be off for one look at least. With `reset` a coil that is on
counts, and is switched off when the part is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgevlm.watch.links.modbus import HIGHEST, MOST_REGISTERS, Device, ModbusLink
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.waiting import Asked, Waiting
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

CONNECTION = "trigger modbus connection"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def _number(registers: Sequence[int]) -> str:
    return str(sum(register << 16 * place for place, register in enumerate(reversed(registers))))


def _ascii(registers: Sequence[int]) -> str:
    text = b"".join(register.to_bytes(2, "big") for register in registers)
    return text.partition(b"\0")[0].decode("latin-1")


FORMS: dict[str, Callable[[Sequence[int]], str]] = {"number": _number, "ascii": _ascii}
"""How registers hold a part's number: one whole number, or two characters in each; the high half first in both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Device):
    """Where the PLC is, and what is looked at."""

    coil: int
    interval_s: float = 0.05
    """Between two looks."""
    reset: bool = False
    """Switch the coil off when the part is taken."""
    text_register: int | None = None
    """First holding register of the part's number; None: there is none."""
    text_count: int = 1
    """How many registers."""
    text_form: str = "number"
    """"number" or "ascii"."""

    def __post_init__(self) -> None:
        Device.__post_init__(self)
        need(0 <= self.coil <= HIGHEST, "coil", self.coil, f"from 0 to {HIGHEST}")
        need(0.005 <= self.interval_s <= 60, "interval_s", self.interval_s, "from 0.005 to 60 seconds")
        place = self.text_register
        need(place is None or 0 <= place <= HIGHEST, "text_register", place, f"from 0 to {HIGHEST}")
        need(1 <= self.text_count <= MOST_REGISTERS, "text_count", self.text_count, f"from 1 to {MOST_REGISTERS}")
        need(self.text_form in FORMS, "text_form", self.text_form, " or ".join(map(repr, FORMS)))


class ModbusTrigger(Asked):
    """Looks at the coil from a thread of its own."""

    def __init__(self, options: Options, status: Status) -> None:
        self._options, self._status = options, status
        self._waiting = Waiting("modbus", status)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._on: bool | None = None
        """How the coil was; None where that is not known."""
        self._to_reset = False

    def start(self) -> None:
        """Begin to look. A PLC that cannot be reached is a condition, and tried again."""
        if self._thread is None:
            self._stop.clear()
            link = ModbusLink(self._options)
            self._thread = threading.Thread(target=self._run, args=(link,), name="modbus-trigger", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking; takes no longer than one request."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(2 * self._options.timeout_s + 1)
        self._waiting.close()

    def _run(self, link: ModbusLink) -> None:
        pause = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                self._look(link)
            except EdgeVLMError as error:
                self._on = None
                self._status.raise_condition(CONNECTION, str(error), bad=True)
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            self._status.clear_condition(CONNECTION)
            self._stop.wait(self._options.interval_s)
        link.close()

    def _look(self, link: ModbusLink) -> None:
        """Raises `EdgeVLMError`."""
        before, self._on = self._on, link.read_coil(self._options.coil)
        if self._options.reset:
            self._to_reset = self._to_reset and self._on  # off: the answer was lost, the request was not
            if self._on and not self._to_reset:
                self._to_reset = self._waiting.put(self._text(link))  # where there is no room, the coil stays on
            if self._to_reset:
                link.write_coil(self._options.coil, False)
                self._to_reset = False
        elif self._on and before is False:
            self._waiting.put(self._text(link))

    def _text(self, link: ModbusLink) -> str:
        options = self._options
        if options.text_register is None:
            return ""
        return FORMS[options.text_form](link.read_registers(options.text_register, options.text_count))


def make_trigger(options: Options, status: Status) -> ModbusTrigger:
    """The trigger; nothing is touched yet."""
    return ModbusTrigger(options, status)
