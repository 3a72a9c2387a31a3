"""Fusions of ONNX Runtime's operators, one per file: fewer launches and fewer passes over memory, the same function.

They run once every layer is lowered, products included, because what may be fused depends on how a layer is stored.
"""

from __future__ import annotations

import onnx_ir as ir

from edgevlm_export.graphs.fusions import attention_bias, packed_products, residual_norms


def fuse(model: ir.Model) -> None:
    """All of them, in place."""
    residual_norms.fuse(model)
    model.graph.sort()  # a norm's weight may be computed (Gemma's plus one) after the addition that took the norm in
    attention_bias.fuse(model)
    packed_products.fuse(model)
