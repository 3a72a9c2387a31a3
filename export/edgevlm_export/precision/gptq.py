"""GPTQ (Frantar et al. 2022): round a weight's columns one after another, each time moving the rounding error to the
columns still to come, so that the layer's outputs on sample inputs change least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgevlm_export.precision.blocks import BlockOptions, Blocks, divisor, scale_blocks

DAMPING = 0.01
"""Added to the Gram matrix's diagonal, as a part of its mean."""
LAZY = 128
"""Columns between two updates of all later columns."""
SHRINKS = torch.linspace(1.0, 0.75, 11)
"""Parts of a block's range that are tried as its scale; the one with the smallest squared error is kept."""


def gptq(weight: Tensor, gram: Tensor, options: BlockOptions) -> Blocks:
    """Quantize `weight` [out, in] for inputs X with `gram` X^T X [in, in]."""
    columns = weight.shape[1]
    work, held_zero = weight.float().clone(), torch.diagonal(gram) == 0
    work[:, held_zero] = 0
    factor = _inverse_factor(gram.float(), held_zero)
    quants = torch.full_like(work, float(options.middle))
    scales, zeros = [], []
    importance = torch.diagonal(gram).float()
    for start in range(0, columns, LAZY):
        stop = min(start + LAZY, columns)
        errors = torch.zeros_like(work[:, start:stop])
        for column in range(start, stop):
            if column % options.block == 0:
                scale, zero = _fit(work[:, column : column + options.block], importance[column:], options)
                scales.append(scale)
                zeros.append(zero)
            code = (work[:, column] / divisor(scale) + zero).round().clamp(0, options.top)
            quants[:, column] = code
            error = (work[:, column] - (code - zero) * scale) / factor[column, column]
            work[:, column + 1 : stop] -= error[:, None] * factor[column, column + 1 : stop]
            errors[:, column - start] = error
        work[:, stop:] -= errors @ factor[start:stop, stop:]
    return _blocks(quants, torch.stack(scales, 1), torch.stack(zeros, 1), options)


def _inverse_factor(gram: Tensor, held_zero: Tensor) -> Tensor:
    """Upper Cholesky factor of the damped inverse, [in, in]."""
    matrix = gram.clone()
    diagonal = torch.diagonal(matrix)
    diagonal[held_zero] = 1
    damping = DAMPING * diagonal.mean()
    while True:
        diagonal += damping
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
            return upper
        damping *= 10


def _fit(block: Tensor, importance: Tensor, options: BlockOptions) -> tuple[Tensor, Tensor]:
    """Scale and zero point [out] of one block [out, n] with the least squared error, weighed by its inputs' energy."""
    weights = importance[: block.shape[1]] / importance[: block.shape[1]].mean().clamp(min=1e-12)
    best: Tensor | None = None
    for shrink in SHRINKS:
        scale, zero = _range(block * shrink, options)
        codes = (block / divisor(scale)[:, None] + zero[:, None]).round().clamp(0, options.top)
        loss = (((codes - zero[:, None]) * scale[:, None] - block).square() * weights).sum(1)
        if best is None:
            best, best_scale, best_zero = loss, scale, zero
            continue
        better = loss < best
        best = torch.where(better, loss, best)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _range(block: Tensor, options: BlockOptions) -> tuple[Tensor, Tensor]:
    scales, zeros = scale_blocks(block[:, None], options)
    zero = torch.full_like(scales, float(options.middle)) if zeros is None else zeros.float()
    return scales[:, 0], zero[:, 0]


def _blocks(quants: Tensor, scales: Tensor, zeros: Tensor, options: BlockOptions) -> Blocks:
    padding = options.blocks(quants.shape[1]) * options.block - quants.shape[1]
    codes = torch.nn.functional.pad(quants, (0, padding), value=float(options.middle)).to(torch.uint8)
    codes = codes.view(len(codes), -1, options.block)
    return Blocks(codes.contiguous(), scales.contiguous(), None if options.symmetric else zeros.to(torch.uint8))
