"""What is computed a few rows at a time is what is computed at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_export import slices
from edgevlm_export.graphs.transforms.orthogonal import Orthogonal
from edgevlm_export.precision.blocks import BlockOptions, quantize


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_any_size(rows, columns, values):
    tensor = torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "VALUES", values)
        parts = list(slices.slices(tensor))
        found = slices.in_slices(lambda some: some.double().sum(-1), tensor)
    assert torch.equal(torch.cat(parts), tensor)
    assert all(part.numel() <= max(values, columns) for part in parts)
    assert found.dtype == torch.float64
    assert torch.equal(found, tensor.double().sum(-1))


@pytest.mark.parametrize("symmetric", [True, False])
def test_quantized_and_rotated_alike(monkeypatch, symmetric):
    weight = torch.randn(50, 96, generator=torch.Generator().manual_seed(0))
    options, rotation = BlockOptions(4, 32, symmetric), Orthogonal(96)
    whole, rotated = quantize(weight, options), rotation.apply(weight)
    monkeypatch.setattr(slices, "VALUES", 7 * 96)
    parts = quantize(weight, options)
    assert torch.equal(parts.quants, whole.quants)
    assert torch.equal(parts.scales, whole.scales)
    assert (parts.zeros is None) == symmetric
    assert symmetric or torch.equal(parts.zeros, whole.zeros)
    assert torch.equal(rotation.apply(weight), rotated)
    torch.testing.assert_close(rotation.undo(rotated), weight)
