"""float16 storage: half the bytes on disk, exactly the checkpoint's values where it is float16 itself.

On the CPU provider the arithmetic stays float32: ONNX Runtime widens each weight once, when the bundle is loaded.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.functional import linear

from edgevlm_export.graphs.edit import Rows, insert_before
from edgevlm_export.precision.base import Format, Made, WeightJob, as_stored, matrix_shape, weight_of
from edgevlm_export.precision.float32 import product
from edgevlm_export.precision.thresholds import HALF


class Float16(Format):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__("fp16", table="fp16", finer=(), thresholds=HALF)

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`."""
        return as_stored(weight, shape, torch.float16, "float16")

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        weight.dtype = ir.DataType.FLOAT16
        wide = insert_before(node, "Cast", [weight], {"to": ir.DataType.FLOAT})
        product(node, wide)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`: the weight is rounded, activations are not."""
        return linear(x, weight.half().float())


FORMAT = Float16()
