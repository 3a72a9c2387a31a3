"""Whether it pays to compute guessed tokens along with one that is certain: measured while answers are made.

A run of several positions costs more than a step, and its guesses may be wrong. How many come true is known without
running them, by comparing with what was said; what a run costs, and how far it rounds otherwise than a step, is known
from the runs there were. Nothing here changes a token.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

LENGTHS = (3, 7, 15)
"""Tokens guessed at once."""
MOST = LENGTHS[-1]
RATE = 0.15
"""What the latest figure counts in an average."""
LATEST = 15
"""Times kept of each kind of run; their median counts, for a machine has other things to do."""
WORTH = 1.1
"""How much faster guessing must be."""
AGAIN = 64
"""Guesses not run before one is run all the same: what a run costs may have changed."""
PROBES = 24
"""Rows of logits that are computed both ways before any is believed."""
TRIES = 2 * PROBES
"""Runs for that, each of which costs its time; later ones are as rare as those of guesses that do not pay."""
SAFETY = 2.0
"""Rounding may be this many times the most that was seen."""


class Gains:
    """What one bundle's guesses cost and bring here. May be used from several threads: a figure lost to another one's
    does no harm."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=LATEST)
        self._runs = {length: deque[float](maxlen=LATEST) for length in LENGTHS}
        self._true = {length: length / 2 for length in LENGTHS}
        self._again = self._owed = 0.0
        self._rounding = 0.0
        self._compared = self._declined = self._probed = 0

    @property
    def rounding(self) -> float | None:
        """How far a logit of a run may be from a step's; None until enough of them were compared."""
        return self._rounding * SAFETY if self._compared >= PROBES else None

    def compared(self, difference: float) -> None:
        """A row was computed both ways; `difference`: the largest of its logits."""
        self._rounding = max(self._rounding, difference)
        self._compared += 1

    def stepped(self, seconds: float) -> None:
        """A step took so long."""
        self._steps.append(seconds)

    def ran(self, guesses: int, seconds: float) -> None:
        """A run with so many guesses took so long."""
        self._runs[guesses].append(seconds)
        self._again, self._owed = _mean(self._again, self._owed), 0.0

    def repeated(self, seconds: float) -> None:
        """Tokens had to be computed again because runs round otherwise."""
        self._owed += seconds

    def came_true(self, guesses: int) -> None:
        """So many of `MOST` guesses were right until the first wrong one."""
        for length in LENGTHS:
            self._true[length] = _mean(self._true[length], min(guesses, length))

    def speed_up(self, guesses: int) -> float:
        """Tokens in the time of a step, when so many are guessed each time; optimistic about what was never run."""
        step = _median(self._steps)
        if not step:
            return 1.0
        cost = (_median(self._runs[guesses]) or step) + self._again
        return (1.0 + self._true[guesses]) * step / cost

    def figures(self) -> Mapping[str, Mapping[int, float]]:
        """What was measured, by how many tokens are guessed at once."""
        step = _median(self._steps)
        costs = {length: _median(times) / step for length, times in self._runs.items() if times and step}
        return {"guesses_right": dict(self._true), "run_costs_steps": costs}

    def length(self, most: int) -> int:
        """How many of at most `most` tokens to guess now; 0 when it does not pay."""
        lengths = [length for length in LENGTHS if length <= most]
        if not lengths or not self._steps:
            return 0
        if self._compared < PROBES and self._probed < TRIES:
            self._probed += 1
            return lengths[-1] if len(lengths) == 1 else lengths[1]
        best = max(lengths, key=self.speed_up)
        if self._compared >= PROBES and self.speed_up(best) >= WORTH:
            return best
        self._declined += 1
        return best if self._declined % AGAIN == 0 else 0


def _mean(before: float, latest: float) -> float:
    return before + RATE * (latest - before)


def _median(times: deque[float]) -> float:
    """0 for none."""
    kept = tuple(times)  # another thread may add some
    return statistics.median(kept) if kept else 0.0
