"""8-bit weights with one scale per output channel; and W8A8 with one activation scale per row, in operators that
take one constant scale.

Engines take a QuantizeLinear with a constant scale for the whole tensor: one outlier row would ruin the others, and
the constant would have to be guessed from samples. So each row is brought to [-1, 1] before, and scaled back after:

    y = r * (DQ(Q(x / r, 1/top)) @ DQ(W)^T) + bias,    r = max|x| of the row

The scale is then the same for every model, and nothing is calibrated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from torch import Tensor
from torch.nn.functional import linear

from edgevlm_export.graphs.edit import Rows, constant_before, insert_before, replace
from edgevlm_export.precision.base import (
    Format,
    Made,
    TensorSpec,
    WeightJob,
    declare_outputs,
    drop_unused,
    matrix_shape,
    row_scale,
    weight_of,
)
from edgevlm_export.precision.thresholds import EIGHT

SMALLEST_ROW = np.float32(2.0**-14)
"""Stands in for the scale of smaller rows, those of zeros among them: the smallest normal float16."""

Quantize = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A weight [out, in] to stored values [out, in] and scales float32 [out]."""


class PerChannel(Format):
    """8-bit weights with one scale per output channel; `top`: the largest stored magnitude, of activations too.

    Without `quantized_inputs` activations stay in floating point.
    """

    def __init__(
        self, name: str, dtype: ir.DataType, top: float, quantize: Quantize, table: str, quantized_inputs: bool = True
    ) -> None:
        super().__init__(name, table=table, finer=(), thresholds=EIGHT)
        self._dtype, self._top, self._quantize = dtype, top, quantize
        self._quantized_inputs = quantized_inputs

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`."""
        kind = self._dtype.name.lower()
        outputs = {
            f"{weight}.{kind}": TensorSpec(self._dtype, shape),
            f"{weight}.{kind}_scales": TensorSpec(ir.DataType.FLOAT, shape[:1]),
        }
        return WeightJob(weight, outputs, lambda tensor: dict(zip(outputs, self._quantize(tensor), strict=True)))

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        stored, scales = declare_outputs(model, job)
        wide = insert_before(node, "DequantizeLinear", [stored, scales], {"axis": 0})
        turned = insert_before(node, "Transpose", [wide], {"perm": [1, 0]})
        x, _, *bias = node.inputs
        last: list[ir.Value | None] = [x, turned]
        operator = "MatMul"
        if self._quantized_inputs:
            largest = row_scale(node, x, SMALLEST_ROW)
            product = insert_before(node, "MatMul", [self._rounded(node, x, largest), turned], {})
            last, operator = [product, largest], "Mul"
        if bias:
            last, operator = [insert_before(node, operator, last, {}), bias[0]], "Add"
        replace(node, operator, last, {})
        drop_unused(model, weight)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`."""
        stored, scales = self._quantize(weight)
        if self._quantized_inputs:
            largest = x.abs().amax(-1, keepdim=True).clamp(min=float(SMALLEST_ROW))
            even = x / largest * self._top
            kept = even.to(stored.dtype) if stored.is_floating_point() else even.round()
            x = kept.float() / self._top * largest
        return linear(x, stored.float() * scales[:, None])

    def _rounded(self, node: ir.Node, x: ir.Value | None, largest: ir.Value) -> ir.Value:
        """x / r as the format holds it."""
        even = insert_before(node, "Div", [x, largest], {})
        scale = constant_before(node, np.array(1 / self._top, np.float32))
        attributes = {"output_dtype": int(self._dtype)}
        quantized = insert_before(node, "QuantizeLinear", [even, scale], attributes)
        return insert_before(node, "DequantizeLinear", [quantized, scale], {})


def channel_scales(weight: Tensor, top: float) -> Tensor:
    """max|w| / top of each row of a weight [out, in]: float32 [out], each a float16 too, so that both types agree."""
    scales = (weight.float().abs().amax(1) / top).half().float()
    return scales.clamp(min=float(SMALLEST_ROW) / top)
