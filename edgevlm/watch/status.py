"""What can be seen of a running watch: counters, gauges, and conditions that somebody should know of.

Every part writes into one `Status`; the page, the metrics, the health check and the log read it.

    status.count("frames_dropped")
    status.raise_condition("source", "rtsp://line-1 is unreachable: connection refused", bad=True)
    status.clear_condition("source")
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be, from when it began until it is over."""

    name: str
    """Which part it is about: "source", "records", "sink mqtt", ..."""
    text: str
    """What is wrong, on one line."""
    bad: bool
    """Whether the health check fails while it lasts; else it is a warning."""
    since: float
    """Unix time in seconds."""
    times: int = 1
    """How often it has begun since the start."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    counters: dict[str, int]
    gauges: dict[str, float]
    conditions: tuple[Condition, ...]


@dataclass(slots=True)
class Status:
    """Safe to use from several threads."""

    _counters: Counter[str] = field(default_factory=Counter)
    _gauges: dict[str, float] = field(default_factory=dict)
    _conditions: dict[str, Condition] = field(default_factory=dict)
    _begun: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name] += by

    def measure(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name] = value

    def raise_condition(self, name: str, text: str, *, bad: bool = False) -> None:
        """Say that something is wrong; it is logged when it begins, not each time it is said again."""
        with self._lock:
            before = self._conditions.get(name)
            if before is None:
                self._begun[name] += 1
            since = time.time() if before is None else before.since
            self._conditions[name] = Condition(name, text, bad, since, self._begun[name])
        if before is None or before.text != text:
            log.warning("%s: %s", name, text)

    def clear_condition(self, name: str) -> None:
        """It is over; nothing happens where it had not begun."""
        with self._lock:
            before = self._conditions.pop(name, None)
        if before is not None:
            log.warning("%s: well again after %.0f s", name, time.time() - before.since)

    def snapshot(self) -> Snapshot:
        """A copy."""
        with self._lock:
            return Snapshot(dict(self._counters), dict(self._gauges), tuple(self._conditions.values()))

    @property
    def healthy(self) -> bool:
        """Whether no condition is bad."""
        return not any(condition.bad for condition in self.snapshot().conditions)
