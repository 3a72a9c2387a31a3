"""What the page is given. `service.board.Board` is one; a test may bring another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.records.record import Record
from edgevlm.watch.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What does not change while a watch runs, but for a new bundle."""

    name: str
    """The plan's."""
    verdicts: tuple[str, ...]
    """Every verdict there can be, "unsure" included, in the plan's order: what a person may say was right."""
    questions: tuple[str, ...]
    """Their names, in the plan's order."""
    regions: tuple[Region, ...] = ()
    """Drawn over the frame."""
    deadline_ms: float | None = None
    bundle: str = ""
    """Digest of the bundle that answers now."""
    version: str = ""
    """edgevlm's."""
    started_at: float = 0.0
    """Unix time in seconds."""


class Board(Protocol):
    """Everything the page shows. All methods may be called from any thread; `wait` alone takes time."""

    @property
    def about(self) -> Watched:
        """Names, regions, verdicts."""
        ...

    @property
    def status(self) -> Status:
        """Counters, gauges and conditions."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether no condition is bad and the threads that judge make progress: /health."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the bundle is loaded and the source has given a frame: /ready."""
        ...

    def latest(self) -> Record | None:
        """The newest record; None before the first."""
        ...

    def records(self, after: int = 0) -> tuple[Record, ...]:
        """Records with a number above `after`, oldest first: of the last few hundred, which are kept in memory.

        A record's `latency_ms` is what the chart shows."""
        ...

    def wait(self, after: int, timeout: float) -> int:
        """Wait until there have been more than `after` changes (a frame was judged, a new frame came while nothing is
        judged), at most `timeout` seconds; how many there have been by then. Begin with 0."""
        ...

    def jpeg(self) -> bytes | None:
        """The last judged frame, before that the newest, as JPEG at most 1280 wide; None before the first frame."""
        ...

    def mark(self, number: int, right: str, note: str = "") -> None:
        """Keep which verdict of record `number` is right: its own, or another.

        Raises `EdgeVLMError` where there is no such record or verdict, or where it cannot be written."""
        ...
