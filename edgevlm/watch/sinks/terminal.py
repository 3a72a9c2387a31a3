"""One line on standard output for every verdict.

14:03:22  part 48112  reject  0.93  182 ms
14:03:24  part 48113  unsure  -     500 ms  default
14:03:24  part 48113  ok      0.71  940 ms  late
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import click

from edgevlm.watch.records.chain import seal
from edgevlm.watch.records.pictures import PICTURES
from edgevlm.watch.records.record import FrameInfo, Record
from edgevlm.watch.sinks.base import About, Delivery, Pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is printed."""

    json: bool = False
    """The record as a line of JSON, as in the record file."""


def make_sink(options: Options, about: About) -> Terminal:
    """Prints nothing yet."""
    return Terminal(options, about)


class Terminal:
    """Standard output."""

    def __init__(self, options: Options, about: About) -> None:
        self._options = options
        self._widest = max([len(verdict) for verdict in about.verdicts], default=0)

    def start(self) -> None:
        """Nothing to connect to."""

    def pending(self, pending: Pending) -> None:
        """Only verdicts are printed."""

    def deliver(self, delivery: Delivery) -> None:
        """Raises `OSError` when nobody reads any more."""
        click.echo(as_json(delivery.record) if self._options.json else self._line(delivery.record))

    def beat(self, healthy: bool) -> None:
        """Only verdicts are printed."""

    def close(self) -> None:
        """Nothing is kept back."""

    def _line(self, record: Record) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.decided_at))
        part = _printable(record.trigger_text) or _frame(record.frame)
        sure = probability(record)
        shown = "-   " if sure is None else f"{sure:.2f}"
        status = "" if record.status == "in time" else f"  {record.status}"
        return f"{at}  {part}  {record.verdict:<{self._widest}}  {shown}  {record.latency_ms:4.0f} ms{status}"


def as_json(record: Record) -> str:
    """The record's line, as in the record file."""
    return seal(record)[1].decode("ascii").rstrip("\n")


def probability(record: Record) -> float | None:
    """Of the answer that the verdict comes from: the first that gives it, or the first that is unsure of itself."""
    return next((answer.probability for answer in record.answers if answer.verdict == record.verdict), None)


def _frame(frame: FrameInfo) -> str:
    """Which frame it was: of a video, whose frames all come from one file, by its number as well."""
    if not frame.sequence:
        return "no frame"
    name = _printable(frame.name)
    if Path(name).suffix.lower() in PICTURES:
        return name
    return f"{name} frame {frame.sequence}".lstrip()


def _printable(text: str) -> str:
    """What came with a trigger, or a file's name, on one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
