"""int8 weights with one scale an output channel, widened where they are used; activations stay in floating point."""

from __future__ import annotations

import onnx_ir as ir

from edgevlm_export.precision.standard.int8 import LIMIT, quantize
from edgevlm_export.precision.standard.per_channel import PerChannel

HOLDER = PerChannel("int8w", ir.DataType.INT8, LIMIT, quantize, quantized_inputs=False, table_holder="int8b")
