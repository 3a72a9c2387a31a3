"""Orthogonal matrices that spread every channel evenly over all of them.

Q = diag(signs) (A x B), a Kronecker product of two small symmetric orthogonal matrices: Hadamard matrices for powers
of two (Sylvester), times a discrete Hartley matrix for an odd factor, whose entries are nearly as even: at most
sqrt(2/n).
Multiplying by Q costs width * (a + b) instead of width^2, on disk as in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgevlm_export.slices import in_slices

Matrix = NDArray[np.float64]

SEED = 0
"""Of the signs: the same model is always rotated the same way."""


def hadamard(order: int) -> Matrix:
    """Sylvester's Hadamard matrix of a power of two, scaled to be orthogonal. Symmetric."""
    matrix = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.kron(matrix, np.array([[1.0, 1.0], [1.0, -1.0]]))
    return np.asarray(matrix / np.sqrt(order), np.float64)


def hartley(order: int) -> Matrix:
    """The discrete Hartley transform, cas(2 pi i j / n) / sqrt(n) with cas = cos + sin (Bracewell 1983). Symmetric."""
    angles = 2 * np.pi / order * np.outer(np.arange(order), np.arange(order))
    return np.asarray((np.cos(angles) + np.sin(angles)) / np.sqrt(order), np.float64)


def even(order: int) -> Matrix:
    """A symmetric orthogonal matrix of any order with entries of nearly equal size."""
    power = order & -order
    return np.asarray(np.kron(hadamard(power), hartley(order // power)), np.float64)


@dataclass(frozen=True)
class Orthogonal:
    """Q of a given width; rows are multiplied from the left, x Q."""

    width: int

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Orders of A and B: as close to each other as powers of two allow, so that both products are cheap."""
        power = self.width & -self.width
        factors = [(1 << shift, self.width >> shift) for shift in range(power.bit_length())]
        return min(factors, key=sum)

    @cached_property
    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A and B."""
        a, b = self.shape
        return even(a).astype(np.float32), even(b).astype(np.float32)

    @cached_property
    def signs(self) -> NDArray[np.float32]:
        """One sign per channel, [width]."""
        return np.random.default_rng(SEED).choice(np.array([-1.0, 1.0], np.float32), self.width)

    def core(self, x: Tensor) -> Tensor:
        """x (A x B) along the last axis; its own inverse."""
        return in_slices(self._mixed, x)

    def apply(self, x: Tensor) -> Tensor:
        """x Q along the last axis."""
        signs = torch.from_numpy(self.signs)
        return in_slices(lambda rows: self._mixed(rows * signs), x)

    def undo(self, x: Tensor) -> Tensor:
        """x Q^T along the last axis."""
        return self.core(x).mul_(torch.from_numpy(self.signs))

    def _mixed(self, rows: Tensor) -> Tensor:
        # in float32: the error is a thousandth of what the finest of the small formats rounds, in a third of the time
        left, right = map(torch.from_numpy, self.factors)
        blocks: Tensor = left @ (rows.float().unflatten(-1, self.shape) @ right)
        return blocks.flatten(-2)
