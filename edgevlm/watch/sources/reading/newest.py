"""The newest of what one thread reads, for another: a place for one, where each replaces the one before."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

from edgevlm.watch.sources.base import SourceLost

T = TypeVar("T")

CAUGHT_UP_S = 0.004
"""A reader that waits this long has read everything there was."""
LONGEST_S = 0.25
"""A reader that never waits, on a machine too slow for the source, gives something this often all the same."""
GLANCE_S = 0.1
"""How often `stop` is looked at."""


class Newest(Generic[T]):
    """Between a reader, which never waits for anybody, and a taker, who never gets what is known to be old.

    A source that could not be read for a while has pictures in a row waiting, and all but the last of them are old. So
    nothing is taken while the reader still finds something without waiting for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._error: Exception | None = None
        self._ended = False
        self._reading: float | None = time.monotonic()
        """Since when the reader waits for data; None while it works on some."""
        self._fresh = False
        self.replaced = 0
        """How many were replaced before anybody took them."""

    def waiting(self) -> None:
        """The reader is about to wait for data."""
        with self._changed:
            self._reading = time.monotonic()

    def working(self) -> None:
        """The reader has got some."""
        with self._changed:
            self._fresh = self._reading is not None and time.monotonic() - self._reading >= CAUGHT_UP_S
            self._reading = None

    def put(self, item: T) -> None:
        """Replace what is there."""
        with self._changed:
            self.replaced += self._item is not None
            self._item = item
            self._changed.notify()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; `error` is raised for the taker, after what is there was taken."""
        with self._changed:
            self._ended, self._error, self._reading = True, error, None
            self._changed.notify()

    def take(self, stop: threading.Event, data_s: float, item_s: float) -> T | None:
        """The newest, or None at the end and when `stop` is set.

        Raises what the reader ended with, and `SourceLost` when there was no data for `data_s` seconds, or nothing
        whole in it for `item_s`.
        """
        began = time.monotonic()
        with self._changed:
            while not stop.is_set():
                now = time.monotonic()
                if self._item is not None and self._current(now, began):
                    item, self._item = self._item, None
                    return item
                if self._item is None and self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                if self._reading is not None and now - self._reading > data_s:
                    raise SourceLost(f"no data for {data_s:g} s")
                if now - began > item_s:
                    raise SourceLost(f"no whole picture for {item_s:g} s")
                self._changed.wait(CAUGHT_UP_S if self._item is not None else GLANCE_S)
        return None

    def _current(self, now: float, began: float) -> bool:
        waits = self._reading is not None and now - self._reading >= CAUGHT_UP_S
        return self._fresh or self._ended or waits or now - began > LONGEST_S
