"""float32: the reference. Weights lie on disk as torch holds them, [out, in]; a transposed product reads them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.functional import linear

from edgevlm_export.graphs.edit import MICROSOFT, Attributes, Rows, insert_before, replace
from edgevlm_export.precision.base import Format, Made, WeightJob, as_stored, matrix_shape, weight_of
from edgevlm_export.precision.thresholds import EXACT
from edgevlm_runtime.bundle.certificate import Thresholds


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


class Float32(Format):
    """See the module's docstring; `multiply` lowers the product once its weight is declared."""

    def __init__(
        self,
        name: str = "fp32",
        thresholds: Thresholds = EXACT,
        multiply: Callable[[ir.Node, ir.Value], None] = product,
    ) -> None:
        super().__init__(name, table=name, finer=(), thresholds=thresholds)
        self._multiply = multiply

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`."""
        return as_stored(weight, shape, torch.float32, "float32")

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        self._multiply(node, weight)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`: exact."""
        return linear(x, weight)


FORMAT = Float32()
