"""float8 (E4M3) weights with one scale an output channel, float8 activations with one scale a row (`per_channel`).

For GPUs that compute in it: Ada, Hopper, Blackwell (SM 89 and later).
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.precision.standard.per_channel import PerChannel, channel_scales

LIMIT = 448
"""The largest E4M3 value."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float8 [out, in] and scales float32 [out]."""
    scales = channel_scales(weight, LIMIT)
    return (weight.float() / scales[:, None]).clamp(-LIMIT, LIMIT).to(torch.float8_e4m3fn), scales


HOLDER = PerChannel("fp8", ir.DataType.FLOAT8E4M3FN, LIMIT, quantize, quantized_inputs=True, table_holder="fp16")
