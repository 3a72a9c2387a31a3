"""GPTQ lowers the error of a layer's outputs on inputs like those it was calibrated with."""

from __future__ import annotations

import pytest
import torch

from edgevlm_export.precision.blocks import BlockOptions, dequantize, quantize
from edgevlm_export.precision.gptq import Curvature, gptq


def _inputs(columns: int, seed: int) -> torch.Tensor:
    """Correlated channels of unequal size, as layers see them."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(columns, columns, generator=generator) * torch.rand(columns, generator=generator)
    return torch.randn(500, columns, generator=torch.Generator().manual_seed(seed)) @ mix


@pytest.mark.parametrize("columns", [64, 100])
@pytest.mark.parametrize("options", [BlockOptions(4, 32, False), BlockOptions(4, 32), BlockOptions(4, 128, False)])
def test_better_than_rounding_on_unseen_inputs(options, columns):
    weight = torch.randn(24, columns, generator=torch.Generator().manual_seed(0))
    seen, unseen = _inputs(columns, 2), _inputs(columns, 3)

    def error(blocks) -> float:
        return float((unseen @ (dequantize(blocks, options, columns) - weight).t()).norm())

    calibrated = gptq(weight, Curvature.of(seen.t() @ seen), options)
    assert error(calibrated) < 0.85 * error(quantize(weight, options))
    assert calibrated.quants.shape == quantize(weight, options).quants.shape
    assert int(calibrated.quants.max()) <= 15


def test_inputs_that_are_always_zero_do_no_harm():
    options = BlockOptions(4, 32, False)
    weight, x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), _inputs(64, 2)
    x[:, 5] = 0
    found = dequantize(gptq(weight, Curvature.of(x.t() @ x), options), options, 64)
    assert torch.isfinite(found).all()
    assert float((x @ (found - weight).t()).norm() / (x @ weight.t()).norm()) < 0.1
