"""Weights of the activations' own type: float32, or float16 when the graph is converted."""

from __future__ import annotations

import onnx_ir as ir

from edgevlm_export.precision.float32 import Float32
from edgevlm_export.precision.standard.product import product
from edgevlm_export.precision.thresholds import EXACT, HALF


def _multiply(node: ir.Node, weight: ir.Value) -> None:
    product(node, node.inputs[0], weight)


FP32 = Float32("fp32", EXACT, _multiply)
FP16 = Float32("fp16", HALF, _multiply)
