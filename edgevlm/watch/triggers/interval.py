"""A frame every so many seconds."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing, Trigger
from edgevlm_runtime.options import is_real, need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[trigger]` with `kind = "interval"`."""

    seconds: float
    """From one judged frame to the next. With a longer time to judge, as often as that allows."""

    def __post_init__(self) -> None:
        need(is_real(self.seconds) and self.seconds > 0, "seconds", self.seconds, "a number above 0")


def make_trigger(options: Options, status: Status) -> Trigger:
    """Fires at the first frame, and then by a clock that does not jump."""
    return Interval(options.seconds)


class Interval:
    """Keeps its beat: a frame that came late does not make the next ones late."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: float | None = None

    def start(self) -> None:
        """Nothing to listen to."""

    def fire(self, frame: Frame) -> Firing | None:
        """Whether it is time."""
        if self._due is not None and frame.captured < self._due:
            return None
        due = frame.captured if self._due is None else self._due
        missed = (frame.captured - due) // self._seconds
        self._due = due + (missed + 1) * self._seconds
        return Firing("interval")

    def close(self) -> None:
        """Nothing to stop."""
