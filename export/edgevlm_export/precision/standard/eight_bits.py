"""8-bit formats with one scale per output channel (`per_channel`).

int8: W8A8, with one activation scale per row. int8w: weights are widened where they are used, activations stay in
floating point. fp8: float8 (E4M3) weights and activations, for GPUs that compute in it: Ada, Hopper, Blackwell (SM 89
and later).
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.precision.standard.per_channel import PerChannel, channel_scales

INT8_TOP = 127
"""Symmetric: -127..127."""
FP8_TOP = 448
"""The largest E4M3 value."""


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and scales float32 [out]."""
    scales = channel_scales(weight, INT8_TOP)
    return (weight.float() / scales[:, None]).round().clamp(-INT8_TOP, INT8_TOP).to(torch.int8), scales


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float8 [out, in] and scales float32 [out]."""
    scales = channel_scales(weight, FP8_TOP)
    return (weight.float() / scales[:, None]).clamp(-FP8_TOP, FP8_TOP).to(torch.float8_e4m3fn), scales


INT8 = PerChannel("int8", ir.DataType.INT8, INT8_TOP, to_int8, table="int8b")
INT8W = PerChannel("int8w", ir.DataType.INT8, INT8_TOP, to_int8, table="int8b", quantized_inputs=False)
FP8 = PerChannel("fp8", ir.DataType.FLOAT8E4M3FN, FP8_TOP, to_fp8, table="fp16")
