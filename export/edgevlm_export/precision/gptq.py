"""GPTQ (Frantar et al. 2022): round a weight's columns one after another, each time moving the rounding error to the
columns still to come, so that the layer's outputs on sample inputs change least.

Columns go by the energy of their inputs, largest first (the "activation order" of GPTQ's code), while there is most
room for their errors. Scales and zero points are fitted to the weight beforehand, so the order leaves no trace in the
format.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgevlm_export.finite import is_finite
from edgevlm_export.precision.blocks import BlockOptions, Blocks, divisor, round_blocks, scale_blocks, split

DAMPING = 0.01
"""Added to the Gram matrix's diagonal, as a part of its mean."""
TRIES = 12
"""Times that more is added, ten times as much each, until the matrix is positive definite: at the end the diagonal is
all there is of it."""
LAZY = 32
"""Columns between two updates of all later columns."""
SHRINKS = torch.linspace(1.0, 0.6, 17)
"""Parts of a block's range that are tried as its scale; the one with the smallest squared error is kept."""


@dataclass(frozen=True, slots=True)
class Curvature:
    """What GPTQ needs to know of a layer's inputs; layers that read the same inputs share it."""

    energy: Tensor
    """Sum of squares of each input, float32 [in]."""
    order: Tensor
    """Columns, int64 [in], the one with most energy first."""
    factor: Tensor
    """Upper Cholesky factor of the inverse of the damped Gram matrix, in that order, float32 [in, in]."""

    @classmethod
    def of(cls, gram: Tensor) -> Curvature:
        """From X^T X [in, in] of inputs X. Raises `ArithmeticError` when the inputs are no finite numbers, or so large
        or so small that their squares are none.
        """
        if not is_finite(gram):
            raise ArithmeticError("the layer's inputs are too large: their squares are no finite numbers")
        energy = torch.diagonal(gram).float().clone()
        order = torch.argsort(energy, descending=True, stable=True)
        return cls(energy, order, _inverse_factor(gram.float()[order][:, order]))


def gptq(weight: Tensor, inputs: Curvature, options: BlockOptions) -> Blocks:
    """Quantize `weight` [out, in]. Raises `ArithmeticError` when rounding errors grow beyond float32."""
    columns = weight.shape[1]
    kept = weight.float() * (inputs.energy > 0)
    scales, zeros = fit(split(kept, options), _by_block(inputs.energy, options), options)
    place = (inputs.order // options.block).tolist()
    steps, offsets = scales.t().contiguous(), zeros.t().contiguous()
    inner = torch.diagonal(inputs.factor).tolist()
    work = kept.t()[inputs.order].contiguous()  # one column per row, so that every step reads what lies together
    codes = torch.empty_like(work)
    for start in range(0, columns, LAZY):
        stop = min(start + LAZY, columns)
        errors = torch.empty(stop - start, work.shape[1])
        for row in range(start, stop):
            scale, zero = steps[place[row]], offsets[place[row]]
            code = (work[row] / divisor(scale) + zero).round_().clamp_(0, options.top)
            codes[row] = code
            error = (work[row] - (code - zero) * scale) / inner[row]
            work[row + 1 : stop].addr_(inputs.factor[row, row + 1 : stop], error, alpha=-1)
            errors[row - start] = error
        work[stop:].addmm_(inputs.factor[start:stop, stop:].t(), errors, alpha=-1)
    if not is_finite(codes):
        raise ArithmeticError("rounding errors grow without end")
    quants = torch.empty_like(codes)
    quants[inputs.order] = codes
    return _blocks(quants.t(), scales, zeros, options)


def fit(blocks: Tensor, energy: Tensor, options: BlockOptions) -> tuple[Tensor, Tensor]:
    """Scales and zero points [out, blocks] of `blocks` [out, blocks, block] with the least squared error, weighed by
    the inputs' `energy` [blocks, block]."""
    weights = energy / energy.mean(-1, keepdim=True).clamp(min=1e-12)
    best: Tensor | None = None
    for shrink in SHRINKS:
        scale, stored = scale_blocks(blocks * shrink, options)
        zero = torch.full_like(scale, float(options.middle)) if stored is None else stored.float()
        codes = round_blocks(blocks, scale, zero, options).float()
        loss = (((codes - zero[..., None]) * scale[..., None] - blocks).square() * weights).sum(-1)
        if best is None:
            best, best_scale, best_zero = loss, scale, zero
            continue
        better = loss < best
        best = torch.where(better, loss, best)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _inverse_factor(gram: Tensor) -> Tensor:
    """Upper Cholesky factor of the damped inverse, [in, in]. Inputs that are always zero get a one.

    Raises `ArithmeticError`: no damping makes the matrix one that can be inverted.
    """
    diagonal = torch.diagonal(gram)
    diagonal[diagonal == 0] = 1
    damping = DAMPING * diagonal.mean()
    for _ in range(TRIES):
        diagonal += damping
        damping = damping * 10
        lower, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            continue
        upper: Tensor
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and is_finite(upper) and bool(torch.diagonal(upper).all()):
            return upper
    raise ArithmeticError("the layer's inputs are of sizes so different that their products cannot be inverted")


def _by_block(energy: Tensor, options: BlockOptions) -> Tensor:
    """[in] to [blocks, block], padded with zeros."""
    return pad(energy, (0, options.blocks(len(energy)) * options.block - len(energy))).view(-1, options.block)


def _blocks(quants: Tensor, scales: Tensor, zeros: Tensor, options: BlockOptions) -> Blocks:
    padding = options.blocks(quants.shape[1]) * options.block - quants.shape[1]
    codes = pad(quants, (0, padding), value=float(options.middle)).to(torch.uint8)
    codes = codes.reshape(len(codes), -1, options.block).contiguous()
    return Blocks(codes, scales.contiguous(), None if options.symmetric else zeros.to(torch.uint8))
