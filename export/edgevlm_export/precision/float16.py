"""float16 storage: half the bytes on disk, exactly the checkpoint's values where it is float16 itself.

On the CPU provider the arithmetic stays float32: ONNX Runtime widens each weight once, when the bundle is loaded.
"""

from __future__ import annotations

import onnx_ir as ir
import torch

from edgevlm_export.graphs.edit import insert_before
from edgevlm_export.precision.base import WeightJob, as_stored, matrix_shape, weight_of
from edgevlm_export.precision.float32 import product


class Float16:
    """See the module's docstring."""

    name = table_holder = "fp16"

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Holder.pack`."""
        return as_stored(weight, shape, torch.float16, "float16")

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Holder.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        weight.dtype = ir.DataType.FLOAT16
        wide = insert_before(node, "Cast", [weight], {"to": ir.DataType.FLOAT})
        product(node, wide)
        return job


HOLDER = Float16()
