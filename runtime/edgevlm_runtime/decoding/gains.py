"""Whether it pays to compute guessed tokens along with one that is certain: measured while answers are made.

A run of several positions costs more than a step, and its guesses may be wrong. How many come true is known without
running them, by comparing with what was said; what a run costs, and how far it rounds otherwise than a step, is known
from the runs there were. Nothing here changes a token.
"""

from __future__ import annotations

LENGTHS = (3, 7, 15)
"""Tokens guessed at once."""
MOST = LENGTHS[-1]
RATE = 0.15
"""What the latest measurement counts in an average."""
WORTH = 1.1
"""How much faster guessing must be."""
AGAIN = 64
"""Guesses not run before one is run all the same: what a run costs may have changed."""
PROBES = 24
"""Rows of logits that are computed both ways before any is believed."""
SAFETY = 2.0
"""Rounding may be this many times the most that was seen."""


class Gains:
    """What one bundle's guesses cost and bring here. May be used from several threads: a figure lost to another one's
    does no harm."""

    def __init__(self) -> None:
        self._step: float | None = None
        self._runs: dict[int, float] = {}
        self._true = {length: length / 2 for length in LENGTHS}
        self._again = self._owed = 0.0
        self._rounding = 0.0
        self._compared = self._declined = 0

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
        self._step = _mean(self._step, seconds)

    def ran(self, guesses: int, seconds: float) -> None:
        """A run with so many guesses took so long."""
        self._runs[guesses] = _mean(self._runs.get(guesses), seconds)
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
        if self._step is None:
            return 1.0
        cost = self._runs.get(guesses, self._step) + self._again
        return (1.0 + self._true[guesses]) * self._step / cost

    def length(self, most: int) -> int:
        """How many of at most `most` tokens to guess now; 0 when it does not pay."""
        lengths = [length for length in LENGTHS if length <= most]
        if not lengths or self._step is None:
            return 0
        if self._compared < PROBES:
            return lengths[-1]
        best = max(lengths, key=self.speed_up)
        if self.speed_up(best) >= WORTH:
            return best
        self._declined += 1
        return best if self._declined % AGAIN == 0 else 0


def _mean(before: float | None, latest: float) -> float:
    return latest if before is None else before + RATE * (latest - before)
