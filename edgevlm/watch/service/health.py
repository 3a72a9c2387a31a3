"""Whether the watch is alive, healthy, ready: for the watchdog, /health and /ready.

alive      the threads make progress: without it the supervisor starts the process again
healthy    alive, and no condition is bad: a person should look
ready      the bundle is loaded and the source has given a frame
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgevlm.watch.status import Status

FIRST_S = 600.0
"""What the first piece of work may take: compiling kernels, reading a bundle from a slow card."""
LEAST_S = 60.0
TIMES = 10.0
"""A piece of work is stuck when it takes this many times the longest before it, and longer than `LEAST_S`."""


class Pulse:
    """How long a thread has been at one piece of work; between two it waits for others, which is no alarm."""

    def __init__(self, first_s: float = FIRST_S, least_s: float = LEAST_S) -> None:
        self._first_s, self._least_s = first_s, least_s
        self._began: float | None = None
        self.longest_s = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def work(self) -> Iterator[None]:
        """One piece of work."""
        began = time.monotonic()
        with self._lock:
            self._began = began
        try:
            yield
        finally:
            with self._lock:
                self._began = None
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    @property
    def stuck(self) -> bool:
        """Whether the work under way takes far longer than any before."""
        with self._lock:
            began, longest = self._began, self.longest_s
        limit = max(self._least_s, TIMES * longest) if longest else self._first_s
        return began is not None and time.monotonic() - began > limit


class Health:
    """What the threads and the conditions say."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.judging = Pulse()
        self.intake = Pulse()
        self.running = False
        """Set by `run` while all threads run."""
        self.seen = threading.Event()
        """Set when the first frame has come."""

    @property
    def alive(self) -> bool:
        """Whether the threads run and none is stuck."""
        return self.running and not self.judging.stuck and not self.intake.stuck

    @property
    def healthy(self) -> bool:
        """Whether it is alive and no condition is bad."""
        return self.alive and self._status.healthy

    @property
    def ready(self) -> bool:
        """Whether a frame could be judged now."""
        return self.running and self.seen.is_set()
