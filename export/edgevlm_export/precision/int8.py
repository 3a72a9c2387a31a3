"""W8A8: int8 weights with one scale per output channel, activations in 8 bits with one scale per row.

com.microsoft::DynamicQuantizeMatMul is the CPU's fastest product, but takes one scale for all rows of its input, and
one outlier row ruins the others. So each row is divided by its largest magnitude before, and multiplied by it after:

    y = r * DynamicQuantizeMatMul(x / r, W) + bias,    r = max|x| of the row

Where a rotation has left no channel that stands out, the root mean square is as good a scale, and an RMSNorm without
weights divides by it in one operator. What a norm gives in a rotated residual stream is even already, every row of the
same length: there one scale serves as it is, and the product takes the bias as well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.graphs.edit import MICROSOFT, Rows, constant_before, insert_before, replace, rows_of
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

LIMIT = 127
"""Weights are symmetric: -127..127."""
NO_ROW = np.float32(1e-30)
"""Stands in for the scale of a row of zeros; of a root mean square, for its square."""
BYTE = 255
"""Steps between the ends of DynamicQuantizeMatMul's range."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [in, out] (the operator's layout) and scales float32 [out] of a weight [out, in]."""
    weight = weight.float()
    scales = weight.abs().amax(1) / LIMIT
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, torch.ones_like(scales), scales)
    return (weight / scales[:, None]).round().to(torch.int8).t().contiguous(), scales


def by_magnitude(node: ir.Node, x: ir.Value | None) -> tuple[ir.Value, str, ir.Value]:
    """x divided by the largest magnitude of each row, and what undoes that: an operator and what it takes."""
    scale = row_scale(node, x, NO_ROW)
    return insert_before(node, "Div", [x, scale], {}), "Mul", scale


def by_root_mean_square(node: ir.Node, x: ir.Value | None) -> tuple[ir.Value, str, ir.Value]:
    """The same by each row's root mean square."""
    assert x is not None
    assert x.shape is not None
    assert node.graph is not None
    gain = constant_before(node, np.ones(int(str(x.shape[-1])), np.float32))
    norm = ir.node("SimplifiedLayerNormalization", [x, gain], {"axis": -1, "epsilon": float(NO_ROW)}, num_outputs=2)
    node.graph.insert_before(node, norm)
    return norm.outputs[0], "Div", norm.outputs[1]


DIVIDED = {Rows.ANY: by_magnitude, Rows.MIXED: by_root_mean_square}
"""How rows are made even that are not."""


def _magnitude(x: Tensor) -> Tensor:
    return x.abs().amax(-1, keepdim=True).clamp(min=float(NO_ROW))


def _root_mean_square(x: Tensor) -> Tensor:
    return (x.square().mean(-1, keepdim=True) + float(NO_ROW)).sqrt()


DIVISORS: dict[Rows, Callable[[Tensor], Tensor]] = {
    Rows.ANY: _magnitude,
    Rows.MIXED: _root_mean_square,
    Rows.EVEN: lambda x: torch.ones(1),
}
"""What rows are divided by before they share a scale, [rows, 1]."""


def _dynamic(x: Tensor) -> Tensor:
    """Rounded as DynamicQuantizeMatMul does: 8 bits between the least and the greatest value of all rows, and zero."""
    least, most = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((most - least) / BYTE).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-least / scale).round()
    return ((x / scale).round() + zero).clamp(0, BYTE).sub(zero) * scale


class RowwiseInt8(Format):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__("int8", table="int8b", finer=("int8b", "fp32"), thresholds=EIGHT)

    @property
    def convolves(self) -> bool:
        """See `Format.convolves`."""
        return True

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`. Rows of the weight are columns on disk, so this is no place to read embeddings from."""
        rows, columns = shape
        quants, scales = f"{weight}.int8", f"{weight}.scales"
        outputs = {
            quants: TensorSpec(ir.DataType.INT8, (columns, rows)),
            scales: TensorSpec(ir.DataType.FLOAT, (rows,)),
        }
        return WeightJob(weight, outputs, lambda tensor: dict(zip(outputs, quantize(tensor), strict=True)))

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        job = self.pack(str(weight.name), matrix_shape(weight))
        quants, scales = declare_outputs(model, job)
        x, _, *bias = node.inputs
        if (rows := rows_of(x)) is Rows.EVEN:
            replace(node, "DynamicQuantizeMatMul", [x, quants, scales, None, *bias], {}, MICROSOFT)
        else:
            even, undo, scale = DIVIDED[rows](node, x)
            product = insert_before(node, "DynamicQuantizeMatMul", [even, quants, scales], {}, MICROSOFT)
            if bias:
                replace(node, "Add", [insert_before(node, undo, [product, scale], {}), bias[0]], {})
            else:
                replace(node, undo, [product, scale], {})
        drop_unused(model, weight)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`."""
        quants, scales = quantize(weight)
        row_scale = DIVISORS[rows](x)
        rounded = torch.cat([_dynamic(some) for some in (x / row_scale).split(together or len(x))]) * row_scale
        return rounded @ (quants.float() * scales)


FORMAT = RowwiseInt8()
