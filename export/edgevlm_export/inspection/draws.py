"""Random numbers that are the same on every machine and with every numpy release.

numpy promises that the raw stream of a bit generator never changes (NEP 19); it does not promise that for
``Generator.integers`` or ``Generator.normal``. So everything here is made from raw words with integers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Choice = TypeVar("Choice")


class Draws:
    """One reproducible stream of choices, named by a tuple of integers."""

    def __init__(self, *name: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(name))

    def below(self, bound: int) -> int:
        """An integer from 0 to ``bound - 1``."""
        return (int(self._bits.random_raw()) >> 32) * bound >> 32

    def between(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def choice(self, options: Sequence[Choice]) -> Choice:
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def shuffled(self, options: Sequence[Choice]) -> list[Choice]:
        """A permutation (Fisher-Yates)."""
        items = list(options)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items

    def bytes(self, count: int) -> npt.NDArray[np.int32]:
        """``[count]`` integers from 0 to 255."""
        words = np.asarray(self._bits.random_raw(-(-count // 8)), dtype="<u8")
        return words.view(np.uint8)[:count].astype(np.int32)
