"""W8A8: int8 weights with one scale an output channel, int8 activations with one scale a row (`per_channel`)."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.precision.standard.per_channel import PerChannel, channel_scales

LIMIT = 127
"""Symmetric: -127..127."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and scales float32 [out]."""
    scales = channel_scales(weight, LIMIT)
    return (weight.float() / scales[:, None]).round().clamp(-LIMIT, LIMIT).to(torch.int8), scales


HOLDER = PerChannel("int8", ir.DataType.INT8, LIMIT, quantize, quantized_inputs=True, table_holder="int8b")
