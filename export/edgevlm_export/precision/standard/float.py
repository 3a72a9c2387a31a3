"""Weights of the activations' own type: float32, or float16 when the graph is converted."""

from __future__ import annotations

import onnx_ir as ir
import torch

from edgevlm_export.precision.base import WeightJob, as_stored, matrix_shape, weight_of
from edgevlm_export.precision.standard.product import product


class Float:
    """See the module's docstring."""

    name = table_holder = "fp32"

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Holder.pack`."""
        return as_stored(weight, shape, torch.float32, "float32")

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Holder.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        product(node, node.inputs[0], weight)
        return job


HOLDER = Float()
