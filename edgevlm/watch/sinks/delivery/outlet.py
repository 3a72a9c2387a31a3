"""Verdicts on their way to the sinks: each sink has a thread and a queue of its own, and keeps nobody but itself.

outlet = Outlet({"mqtt": sink, ...}, status, healthy=lambda: True)
outlet.start()
outlet.deliver(Delivery(record, frame))     # returns at once
outlet.close(timeout=10.0)                  # sends what is left; {"webhook": 3} if three did not get out
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edgevlm.watch.sinks.base import Delivery, Pending, Sink
from edgevlm.watch.sinks.delivery.line import Line
from edgevlm.watch.status import Status


class Outlet:
    """All sinks of a watch. Methods may be called from any thread, and none but `close` waits."""

    def __init__(self, sinks: Mapping[str, Sink], status: Status, healthy: Callable[[], bool]) -> None:
        """`sinks` by the names that conditions and counters show; `healthy` is what `Sink.beat` is told."""
        self._lines = [Line(name, sink, status, healthy) for name, sink in sinks.items()]

    def start(self) -> None:
        """Start every sink's thread; a sink that cannot start is tried again with a growing pause."""
        for line in self._lines:
            line.begin()

    def pending(self, pending: Pending) -> None:
        """Tell every sink that a part is being judged; the first thing to be left out where one is behind."""
        for line in self._lines:
            line.put(pending)

    def deliver(self, delivery: Delivery) -> None:
        """Hand a verdict to every sink. See `sinks.line` for what happens to one that is far behind."""
        for line in self._lines:
            line.put(delivery)

    def check(self) -> None:
        """Say which sinks hang, as conditions; call it about once a second."""
        for line in self._lines:
            line.check()

    def close(self, timeout: float) -> dict[str, int]:
        """Let every sink send what waits and close it, all within `timeout` seconds; how many verdicts did not get
        out, by sink, for those where some did not. A sink that hangs is left behind."""
        for line in self._lines:
            line.finish()
        end = time.monotonic() + timeout
        for line in self._lines:
            line.join(max(0.0, end - time.monotonic()))
        return {line.name: left for line in self._lines if (left := line.undelivered)}
