"""Messages that ask for a verdict, from the thread that hears them to the thread that has frames."""

from __future__ import annotations

import logging
import threading
from collections import deque

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing

log = logging.getLogger(__name__)

MOST = 64
LONGEST_TEXT = 1024
"""Characters of a part's number that are kept."""


class Waiting:
    """A short queue; what does not fit is counted and shown, and whoever sent it can be told."""

    def __init__(self, kind: str, status: Status) -> None:
        self._kind, self._status = kind, status
        self._firings: deque[Firing] = deque()
        self._lock = threading.Lock()

    def put(self, text: str) -> bool:
        """Ask for a verdict on the next frame. Returns whether there was room."""
        with self._lock:
            room = len(self._firings) < MOST
            if room:
                self._firings.append(Firing(self._kind, clean(text), addressed=True))
        condition = f"trigger {self._kind} queue"
        if room:
            self._status.count(f"trigger_{self._kind}_fired")
            self._status.clear_condition(condition)
        else:
            self._status.count(f"trigger_{self._kind}_dropped")
            self._status.raise_condition(condition, f"{MOST} wait for a frame: further ones are not taken", bad=True)
        return room

    def close(self) -> None:
        """No frame comes any more: those that still wait are counted and told, once."""
        with self._lock:
            left = len(self._firings)
            self._firings.clear()
        if left:
            self._status.count(f"trigger_{self._kind}_dropped", left)
            log.warning("trigger %s: %d that asked for a verdict get none: no frame came after them", self._kind, left)

    def take(self) -> Firing | None:
        """The oldest."""
        if not self._firings:  # looked at for every frame
            return None
        with self._lock:
            return self._firings.popleft() if self._firings else None

    def overdue(self, asked_before: float) -> list[Firing]:
        """See `KeepsWaiting`."""
        with self._lock:
            found: list[Firing] = []
            while self._firings and self._firings[0].fired < asked_before:
                found.append(self._firings.popleft())
        return found

    def oldest(self) -> float | None:
        """See `KeepsWaiting`."""
        with self._lock:
            return self._firings[0].fired if self._firings else None


class Asked:
    """What triggers share that others ask: `fire` and `KeepsWaiting`."""

    _waiting: Waiting

    def fire(self, frame: Frame) -> Firing | None:
        """The oldest that waits."""
        return self._waiting.take()

    def overdue(self, asked_before: float) -> list[Firing]:
        """Those that asked before this moment, which wait no longer."""
        return self._waiting.overdue(asked_before)

    def oldest(self) -> float | None:
        """When the oldest that waits asked."""
        return self._waiting.oldest()


def clean(text: str) -> str:
    """One line that can be printed and recorded, of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_TEXT]).strip()
