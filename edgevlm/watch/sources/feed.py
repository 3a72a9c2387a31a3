"""A source that is kept running: its pictures as numbered frames; when it is lost it is opened again, however often.

for frame in Feed(source, status, at_start="retry").frames(stop): ...
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.sources.base import Picture, Source, SourceLost
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, one_line, reason
from edgevlm_runtime.options import need

log = logging.getLogger(__name__)

CONDITION = "source"
AT_START = ("retry", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long is waited before a lost source is opened again."""

    first_s: float = 0.5
    most_s: float = 30.0
    growth: float = 2.0

    def after(self, losses: int) -> float:
        """Seconds after so many losses in a row, 1 or more. Half of it is chance: a hundred watchers of one server must
        not all come back at the same moment."""
        full = min(self.most_s, self.first_s * self.growth ** min(losses - 1, 60))
        return full * random.uniform(0.5, 1.0)


class Feed:
    """Frames of one source. Counts "frames" and "source_losses"; the condition "source" lasts while it is lost."""

    def __init__(self, source: Source, status: Status, at_start: str = "retry", pauses: Pauses | None = None) -> None:
        """`at_start`: what happens when it cannot be reached before the first frame: "retry" or "fail"."""
        need(at_start in AT_START, "at_start", at_start, " or ".join(f'"{one}"' for one in AT_START))
        self._source, self._status, self._at_start = source, status, at_start
        self._pauses = pauses or Pauses()
        self._sequence = 0

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Frames until the source ends or `stop` is set; waits where there is none.

        Raises `EdgeVLMError` for what trying again cannot mend, before the first frame or from a source that is not
        live; a camera that has worked is tried again whatever it says. With "fail", raises `SourceLost` when the source
        cannot be reached at the start.
        """
        losses = 0
        while not stop.is_set():
            try:
                for picture in self._source.pictures(stop):
                    losses = 0
                    self._status.clear_condition(CONDITION)
                    yield self._frame(picture)
                    if stop.is_set():
                        return
                self._status.clear_condition(CONDITION)
                return
            except EdgeVLMError as error:
                if self._final(error):
                    raise
                said = one_line(error)
            except Exception as error:  # a library's, of a camera that has to go on for months
                log.debug("the source failed", exc_info=error)
                said = f"it failed: {reason(error)}"
            losses += 1
            self._status.count("source_losses")
            pause = self._pauses.after(losses)
            self._status.raise_condition(CONDITION, said, bad=True)
            log.debug("the source is opened again in %.1f s", pause)
            stop.wait(pause)

    def _final(self, error: EdgeVLMError) -> bool:
        started = self._sequence > 0
        if isinstance(error, SourceLost):
            return self._at_start == "fail" and not started
        return not (started and self._source.live)

    def _frame(self, picture: Picture) -> Frame:
        self._sequence += 1
        self._status.count("frames")
        pixels = picture.pixels
        pixels.flags.writeable = False
        return Frame(self._sequence, picture.captured_at, picture.captured, pixels, picture.name)
