"""Every so many frames."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing, Trigger
from edgevlm_runtime.options import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[trigger]` with `kind = "every"`."""

    frames: int = 1
    """1 judges every frame; of a camera that is faster than the model, the newest each time."""

    def __post_init__(self) -> None:
        whole = isinstance(self.frames, int) and not isinstance(self.frames, bool) and self.frames >= 1
        need(whole, "frames", self.frames, "a whole number of at least 1")


def make_trigger(options: Options, status: Status) -> Trigger:
    """Fires at the first frame."""
    return Every(options.frames)


class Every:
    """Counts by the frames' own numbers."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._due = 0

    def start(self) -> None:
        """Nothing to listen to."""

    def fire(self, frame: Frame) -> Firing | None:
        """Whether it is this one's turn."""
        if frame.sequence < self._due:
            return None
        self._due = frame.sequence + self._frames
        return Firing("every")

    def close(self) -> None:
        """Nothing to stop."""
