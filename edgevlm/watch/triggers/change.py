"""A frame in which something is other than in the frame that fired last, once it has come to rest.

A part that has fired while the judge was busy waits in one place. One that fires by then takes its place, and the part
before gets no verdict (it is counted as dropped): where every part needs one, let it be asked for (`mqtt`, `http`,
`modbus`, `file`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevlm.watch.frames.change import difference, signature
from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.regions import Box, Mask, Polygon, Region, cut, load_mask
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing, Trigger
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.options import is_real, need

CONDITION = "trigger change"
AT_REST = 0.5
"""Of `above`: what moves by less is at rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[trigger]` with `kind = "change"`."""

    above: float = 0.04
    """How far the picture must be from the frame that fired last, from 0 to 1 (`frames.change`): noise and compression
    stay below 0.03, a scratch on a part is above 0.045."""
    settle_s: float = 0.0
    """Fire when nothing has moved for this long: a part that has come to rest. 0 fires at once."""
    at_least_every_s: float | None = 60.0
    """Fire after this long in any case, whether or not anything changed or came to rest."""
    box: Box | None = None
    """Where to look: left, top, right, bottom, in pixels or shares, as of a region."""
    mask: Path | None = None
    """What is black in this picture is not looked at."""
    polygons: tuple[Polygon, ...] = ()
    """Nor these, each as its corners."""

    def __post_init__(self) -> None:
        need(is_real(self.above) and 0 < self.above < 1, "above", self.above, "a number from 0 to 1, both excluded")
        need(is_real(self.settle_s) and self.settle_s >= 0, "settle_s", self.settle_s, "a number of seconds, 0 or more")
        every = self.at_least_every_s
        sound = every is None or (is_real(every) and every > 0)
        need(sound, "at_least_every_s", every, "a number of seconds above 0")


def make_trigger(options: Options, status: Status) -> Trigger:
    """Fires at the first frame. The mask is read at `start`."""
    return Change(options, status)


class Change:
    """Compares each frame with the one that fired last, and with the one since which nothing has moved."""

    def __init__(self, options: Options, status: Status) -> None:
        self._options, self._status = options, status
        self._region = Region(name="of the trigger", box=options.box, mask=options.mask, polygons=options.polygons)
        self._mask: Mask | None = None
        self._fired: NDArray[np.float32] | None = None
        self._fired_at = 0.0
        self._resting: NDArray[np.float32] | None = None
        self._resting_since = 0.0

    def start(self) -> None:
        """Read the mask. Raises `ImageError` for one that cannot be read."""
        if self._options.mask is not None:
            self._mask = load_mask(self._options.mask)

    def fire(self, frame: Frame) -> Firing | None:
        """Measures "change", the difference to the frame that fired last. A region that does not fit the frame is a
        condition, and frames are then judged by `at_least_every_s` alone."""
        now = self._signature(frame)
        if now is not None:
            self._rest(now, frame.captured)
        if not self._changed(now, frame.captured) and not self._due(frame.captured):
            return None
        self._fired, self._fired_at = now, frame.captured
        return Firing("change")

    def close(self) -> None:
        """Nothing to stop."""

    def _signature(self, frame: Frame) -> NDArray[np.float32] | None:
        try:
            found = signature(cut(frame.pixels, self._region, self._mask))
        except EdgeVLMError as error:
            self._status.raise_condition(CONDITION, one_line(error), bad=True)
            return None
        self._status.clear_condition(CONDITION)
        return found

    def _rest(self, now: NDArray[np.float32], captured: float) -> None:
        """Compared with where it came to rest rather than with the frame before: what creeps is not at rest."""
        moved = self._resting is None or difference(self._resting, now) > self._options.above * AT_REST
        if moved:
            self._resting, self._resting_since = now, captured

    def _changed(self, now: NDArray[np.float32] | None, captured: float) -> bool:
        if now is None:
            return False
        if self._fired is None:
            return True
        change = difference(self._fired, now)
        self._status.measure("change", change)
        return change > self._options.above and captured - self._resting_since >= self._options.settle_s

    def _due(self, captured: float) -> bool:
        every = self._options.at_least_every_s
        return every is not None and captured - self._fired_at >= every
