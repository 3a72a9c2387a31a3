"""What every sink is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from edgevlm.watch.frames.frame import NO_PIXELS, Frame
from edgevlm.watch.records.record import Record
from edgevlm.watch.status import Status


@dataclass(frozen=True, slots=True)
class About:
    """What a sink may know of the watch it belongs to."""

    name: str
    """The plan's name: unique on a site, part of topics and file names."""
    verdicts: tuple[str, ...]
    """Every verdict there can be, "unsure" included, in the plan's order."""
    questions: tuple[str, ...]
    """Names of the questions."""
    folder: Path
    """Where this watch keeps what must survive a restart (spools)."""
    status: Status
    version: str = ""
    records: Path | None = None
    """The file that records are written to, where there is one: people's marks are beside it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A part has come and is being judged."""

    frame: Frame
    trigger: str
    trigger_text: str = ""
    deadline: float | None = None
    """`time.monotonic()` by which there is a verdict in any case."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verdict on its way to a sink."""

    record: Record
    frame: Frame
    before: tuple[Frame, ...] = ()
    """Frames of the seconds before it, oldest first."""
    made: float = field(default_factory=time.monotonic)

    @property
    def has_picture(self) -> bool:
        """Whether `frame` has its pixels: they are let go where a sink is so far behind that memory would not do."""
        return self.frame.pixels.size > 0

    def without_picture(self) -> Delivery:
        """The record alone, with a frame of no pixels."""
        return replace(self, frame=replace(self.frame, pixels=NO_PIXELS), before=())


class Sink(Protocol):
    """Made by the `make_sink(options, about)` of its file, which touches nothing yet.

    All methods are called from one thread, the sink's own (`sinks.delivery`), so they may take their time: a sink that
    hangs keeps nobody but itself. What they raise is counted, shown as a condition, and the next call comes anyway.
    """

    def start(self) -> None:
        """Connect. Raises `EdgeVLMError`; the outlet then tries again with a growing pause."""
        ...

    def pending(self, pending: Pending) -> None:
        """A part is being judged. Best effort: skipped when the sink is behind."""
        ...

    def deliver(self, delivery: Delivery) -> None:
        """A verdict. Late and default ones come too: `record.status` says which."""
        ...

    def beat(self, healthy: bool) -> None:
        """About once a second: heartbeat, ready, whatever the other side wants to see alive."""
        ...

    def close(self) -> None:
        """Send what is left, say goodbye; may be called twice, and without `start`."""
        ...
