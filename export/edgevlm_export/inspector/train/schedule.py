"""How long, how fast, and which losses count when."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Everything is a function of the step alone, so a training can stop and resume anywhere."""

    steps: int = 4000
    batch: int = 32
    seeing: int = 400
    """First steps, in which only the vision tower learns, from the auxiliary heads."""
    warmup: int = 60
    matrix_rate: float = 7e-3
    """Muon's peak learning rate; AdamW's, for all other weights, is ``other_rate``."""
    other_rate: float = 2e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    language_weight: float = 3.0
    auxiliary_weight: float = 1.0
    """Weight of the auxiliary losses at first; 0 leaves the heads out, as when known weights go on to learn."""
    records: int = 100
    """For how many pictures in a hundred the record is asked too, as JSON, beside the eight questions."""
    first_seed: int = 0
    """The first drawn part: one training sees ``steps * batch`` of them, a further one begins behind those."""
    seed: int = 1

    def rate(self, step: int) -> float:
        """Share of the peak rate: linear warm-up, then a cosine to zero at the last step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup))

    def with_language(self, step: int) -> bool:
        return step >= self.seeing

    def auxiliary(self, step: int) -> float:
        """Weight of the auxiliary losses: falls from all of it to a tenth at three quarters of the steps."""
        done = max(0, step - self.seeing) / max(1, self.steps - self.seeing)
        return self.auxiliary_weight * max(0.1, 1 - 1.2 * done)
