"""Whether numbers are numbers: NaN and infinity are refused where they enter.

One NaN in a weight spreads to every answer, and to whatever a loop waits for. Looking costs little beside reading:
smallest and largest value of a tensor in one pass, 11 to 31 GB/s on two cores in any type, where `isfinite(x).all()`
makes a second tensor and reaches 0.4 to 1.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float32).max
"""What everything computes in: a float64 beyond it is infinite here."""


def is_finite(values: Tensor) -> bool:
    """Whether every value of a floating-point tensor is a number that float32 holds; true of integers."""
    if not values.is_floating_point() or not values.numel():
        return True
    if values.dtype.itemsize == 1:  # eight-bit floats have no such reduction
        values = values.float()
    low, high = torch.aminmax(values.detach())  # NaN where one value is
    return float(low) >= -LARGEST and float(high) <= LARGEST
