"""What a linear layer gives once its holder has quantized it, computed in PyTorch.

Activations are quantized as the operators do it, so that what a holder costs can be measured layer by layer, before a
graph is written. Differences of kernels (order of sums, instruction sets) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from edgevlm_export.graphs.edit import Rows
from edgevlm_export.precision.base import Holder
from edgevlm_export.precision.blocks import Blockwise, dequantize, quantize
from edgevlm_export.precision.int8 import NO_ROW, RowwiseInt8
from edgevlm_export.precision.int8 import quantize as quantize_channels

Made = Mapping[str, Tensor] | None
"""The initializers that calibration made of the weight, where it did."""
BYTE = 255
"""Steps between the ends of DynamicQuantizeMatMul's range."""
BLOCK_STEPS = 127
"""MatMulNBits at accuracy level 4: activations in symmetric int8, one scale a block."""


@singledispatch
def simulate(
    holder: Holder, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
) -> Tensor:
    """x W^T [rows, out] of `x` [rows, in] and `weight` [out, in], both float32, as `holder` computes it; no bias.

    `rows`: what the graph knows of them; `together`: how many it runs at once, which may share a scale (None:
    all of them).
    Floating-point holders compute it exactly: a checkpoint's weights are at most a rounding away.
    """
    return linear(x, weight)


@simulate.register
def _(
    holder: RowwiseInt8,
    x: Tensor,
    weight: Tensor,
    made: Made = None,
    rows: Rows = Rows.ANY,
    together: int | None = None,
) -> Tensor:
    quants, scales = quantize_channels(weight)
    row_scale = DIVISORS[rows](x)
    rounded = torch.cat([_dynamic(some) for some in (x / row_scale).split(together or len(x))]) * row_scale
    return rounded @ (quants.float() * scales)


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


@simulate.register
def _(
    holder: Blockwise, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
) -> Tensor:
    columns = weight.shape[1]
    options = holder.options.fitted(columns)
    held = quantize(weight, options) if made is None else holder.unpacked(made, columns)
    blocks = pad(x, (0, options.blocks(columns) * options.block - columns)).unflatten(-1, (-1, options.block))
    steps = blocks.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / BLOCK_STEPS
    even = ((blocks / steps).round() * steps).flatten(-2)[..., :columns]
    return linear(even, dequantize(held, options, columns))
