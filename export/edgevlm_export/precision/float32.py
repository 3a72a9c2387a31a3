"""float32: the reference. Weights lie on disk as torch holds them, [out, in]; a transposed product reads them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch

from edgevlm_export.graphs.edit import MICROSOFT, Attributes, insert_before, replace
from edgevlm_export.precision.base import WeightJob, as_stored, matrix_shape, weight_of


def product(node: ir.Node, weight: ir.Value) -> None:
    """x @ weight.T (+ bias) in place of a Linear node.

    FusedMatMul transposes while it packs, so no second copy of the weight is made when the graph is loaded.
    """
    x, _, *bias = node.inputs
    attributes: Attributes = {"transB": 1, "alpha": 1.0}
    if not bias:
        replace(node, "FusedMatMul", [x, weight], attributes, MICROSOFT)
        return
    y = insert_before(node, "FusedMatMul", [x, weight], attributes, MICROSOFT)
    replace(node, "Add", [y, bias[0]], {})


class Float32:
    """See the module's docstring; `multiply` lowers the product once its weight is declared."""

    name = table_holder = "fp32"

    def __init__(self, multiply: Callable[[ir.Node, ir.Value], None] = product) -> None:
        self._multiply = multiply

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Holder.pack`."""
        return as_stored(weight, shape, torch.float32, "float32")

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Holder.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        self._multiply(node, weight)
        return job


HOLDER = Float32()
