"""One sink's thread: it alone calls the sink, so that a sink which hangs or fails keeps nobody but itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edgevlm.watch.sinks.base import Delivery, Sink
from edgevlm.watch.sinks.delivery.waiting import MOST_WAITING, Entry, Waiting
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import reason

log = logging.getLogger(__name__)

BEAT_S = 1.0
HANGS_S = 5.0
"""A call to a sink that takes longer is shown as a condition."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Between two attempts to start a sink; each pause is twice the one before."""

HANGS, LOST = "hangs", "lost"


class Line:
    """What waits for one sink and the thread that sends it.

    Counters: `sink_sent.NAME`, `sink_failed.NAME` (calls that raised), `sink_lost.NAME` (verdicts that were too many).
    Condition: "sink NAME", until what went wrong goes right again.
    """

    def __init__(self, name: str, sink: Sink, status: Status, healthy: Callable[[], bool]) -> None:
        self.name = name
        self._sink, self._status, self._healthy = sink, status, healthy
        self._waiting = Waiting()
        self._in_hand = 0
        self._lost = 0
        self._finishing = False
        self._called_at: float | None = None
        """When the call that is under way began."""
        self._troubles: dict[str, str] = {}
        """What is wrong, by the method that failed."""
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Let an entry wait for its turn; within the bounds of `Waiting`."""
        with self._change:
            lost = self._waiting.put(entry)
            self._lost += lost
            self._change.notify_all()
        if lost:
            self._status.count(f"sink_lost.{self.name}", lost)
            self._trouble(LOST, f"{MOST_WAITING} verdicts wait for it, the oldest are lost to it; records have them")

    def check(self) -> None:
        """Raise the condition of a sink that hangs."""
        with self._change:
            since, waiting = self._called_at, self._waiting.verdicts
        self._status.measure(f"sink_waiting.{self.name}", waiting)
        if since is not None and time.monotonic() - since > HANGS_S:
            self._trouble(HANGS, f"a call has not come back for more than {HANGS_S:g} s")

    def finish(self) -> None:
        """No more comes: send what is left, close the sink, end."""
        with self._change:
            self._finishing = True
            self._change.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def undelivered(self) -> int:
        """Verdicts that the sink did not take: lost, waiting, or in a call that failed or has not come back."""
        with self._change:
            return self._lost + self._waiting.verdicts + self._in_hand

    def _run(self) -> None:
        if self._started():
            self._serve()
        self._call(self._sink.close)

    def _started(self) -> bool:
        pause = FIRST_PAUSE_S
        while not self._call(self._sink.start):
            with self._change:
                if self._change.wait_for(lambda: self._finishing, pause):
                    return False
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return True

    def _serve(self) -> None:
        beat_at = time.monotonic()
        while True:
            entry = self._next(beat_at)
            if isinstance(entry, Delivery):
                self._deliver(entry)
            elif entry is not None:
                self._call(self._sink.pending, entry)
            elif self._finishing:
                return
            if time.monotonic() >= beat_at and not self._finishing:
                self._call(self._sink.beat, self._healthy())
                beat_at = time.monotonic() + BEAT_S

    def _next(self, until: float) -> Entry | None:
        """What to send now; None when it is time for a beat, or for the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._finishing, max(0.0, until - time.monotonic()))
            entry = self._waiting.take(notices=not self._finishing)
            self._in_hand = int(isinstance(entry, Delivery))
            return entry

    def _deliver(self, delivery: Delivery) -> None:
        sent = self._call(self._sink.deliver, delivery)
        with self._change:
            self._in_hand = 0
            self._lost += not sent
        if sent:
            self._status.count(f"sink_sent.{self.name}")
            self._well(LOST)

    def _call(self, method: Callable[..., None], *arguments: object) -> bool:
        """Call the sink; False when it raised, which is counted and shown until the same goes right."""
        with self._change:
            self._called_at = time.monotonic()
        try:
            method(*arguments)
        except Exception as error:
            log.debug("sink %s failed", self.name, exc_info=error)
            self._status.count(f"sink_failed.{self.name}")
            self._trouble(method.__name__, reason(error))
            return False
        finally:
            with self._change:
                self._called_at = None
            self._well(HANGS)
        self._well(method.__name__)
        return True

    def _trouble(self, what: str, text: str) -> None:
        with self._change:
            self._troubles[what] = text
            self._status.raise_condition(f"sink {self.name}", text, bad=True)

    def _well(self, what: str) -> None:
        with self._change:
            if self._troubles.pop(what, None) is None:
                return
            if self._troubles:
                self._status.raise_condition(f"sink {self.name}", list(self._troubles.values())[-1], bad=True)
            else:
                self._status.clear_condition(f"sink {self.name}")
