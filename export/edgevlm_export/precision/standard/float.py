"""Weights of the activations' own type: float32, or float16 when the graph is converted."""

from __future__ import annotations

from edgevlm_export.precision.float32 import Float32
from edgevlm_export.precision.standard.product import product

HOLDER = Float32(lambda node, weight: product(node, node.inputs[0], weight))
