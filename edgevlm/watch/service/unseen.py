"""Parts that asked for a verdict while the camera gave no frame: the default at their deadline, without a picture.

A part whose verdict has gone out is not judged by the frame that comes much later, which shows another one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from edgevlm.watch.frames.frame import no_frame
from edgevlm.watch.service.jobs import Job
from edgevlm.watch.triggers.base import Firing, KeepsWaiting, Trigger

LOOK_S = 0.5
"""The longest pause: the deadline may be another by then, when a plan was taken over."""


class Unseen:
    """Looks after what waits in a trigger. Each part goes either to a frame or to here."""

    def __init__(
        self,
        trigger: Trigger,
        deadline_ms: Callable[[], float | None],
        default: Callable[[Job], object],
        skip: Callable[[Job], object],
    ) -> None:
        """`default` and `skip` make the record of a job without a judge (`Decisions`)."""
        self._waiting = trigger if isinstance(trigger, KeepsWaiting) else None
        self._deadline_ms, self._default, self._skip = deadline_ms, default, skip

    def run(self, stop: threading.Event) -> None:
        """Send defaults when they are due, until `stop`."""
        while not stop.wait(self.look()):
            pass

    def look(self) -> float:
        """Send what is due; seconds until more can be. Whoever asks from now on has all of the deadline."""
        milliseconds = self._deadline_ms()
        if self._waiting is None or milliseconds is None:
            return LOOK_S
        seconds = milliseconds / 1e3
        for firing in self._waiting.overdue(time.monotonic() - seconds):
            self._default(_job(firing))
        oldest = self._waiting.oldest()
        due = seconds if oldest is None else oldest + seconds - time.monotonic()
        return min(max(due, 0.0), LOOK_S)

    def end(self) -> None:
        """No frame is judged any more: whoever still waits gets the default now."""
        for firing in self._waiting.overdue(math.inf) if self._waiting is not None else ():
            self._skip(_job(firing))


def _job(firing: Firing) -> Job:
    return Job(no_frame(firing.at, firing.fired), firing)
