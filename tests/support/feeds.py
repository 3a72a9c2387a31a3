"""A feed that runs in a thread, and what came of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.sources.base import Source
from edgevlm.watch.sources.feed import Feed, Pauses
from edgevlm.watch.status import Status

QUICK = Pauses(first_s=0.05, most_s=0.2)
DEADLINE_S = 60.0


@dataclass
class Running:
    """A feed that runs."""

    status: Status
    frames: list[Frame] = field(default_factory=list)
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def until(self, holds: Callable[[], object], what: str = "it") -> None:
        """Wait until something holds."""
        ends = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < ends, f"{what} did not happen: {self.status.snapshot()}, {self.error}"
            time.sleep(0.01)

    def more(self, count: int) -> list[Frame]:
        """Wait for so many frames from now on."""
        begin = len(self.frames)
        self.until(lambda: len(self.frames) >= begin + count, f"{count} more frames")
        return self.frames[begin : begin + count]

    def counted(self, name: str) -> int:
        return self.status.snapshot().counters.get(name, 0)

    def conditions(self) -> dict[str, str]:
        return {one.name: one.text for one in self.status.snapshot().conditions}


@contextmanager
def running(
    source: Source, status: Status, at_start: str = "retry", each: Callable[[Frame], None] | None = None
) -> Iterator[Running]:
    """Frames of `source`, collected by a thread that is gone afterwards. `each` is called for every one."""
    found, stop = Running(status), threading.Event()

    def collect() -> None:
        try:
            for frame in Feed(source, status, at_start, QUICK).frames(stop):
                found.frames.append(frame)
                if each is not None:
                    each(frame)
        except BaseException as error:  # noqa: BLE001 -- shown by the test
            found.error = error
        found.ended.set()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive(), "the feed does not stop"


def check_order(frames: list[Frame]) -> None:
    """Numbers and times rise: no frame is older than the one before it."""
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
    for before, after in itertools.pairwise(frames):
        assert after.captured >= before.captured
