"""int4 weights in blocks, signed and symmetric: DequantizeLinear with a block size, one scale per block.

Blocks divide a row evenly: engines take no partial block. Activations stay in floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced

import onnx_ir as ir
from torch import Tensor
from torch.nn.functional import linear

from edgevlm_export.graphs.edit import Rows, insert_before
from edgevlm_export.precision.base import (
    Made,
    TensorSpec,
    WeightJob,
    declare_outputs,
    drop_unused,
    matrix_shape,
    weight_of,
)
from edgevlm_export.precision.blocks import BlockOptions, Blocks, dequantize, pack_nibbles, quantize, unpack_nibbles
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.standard.product import product
from edgevlm_export.precision.thresholds import FOUR
from edgevlm_runtime.bundle.certificate import Thresholds
from edgevlm_runtime.errors import ExportError

FLIP = 8
"""Stored codes 0..15 around 8, with the top bit turned over, are two's complement -8..7."""


class EvenBlocks(BlockOptions):
    """Blocks that divide a row."""

    __slots__ = ()

    def fitted(self, columns: int) -> EvenBlocks:
        """The same with the largest block that divides a row of `columns` values. Raises `ExportError`: none does."""
        block = self.block
        while block > 16 and columns % block:
            block //= 2
        if columns % block:
            raise ExportError(f"a layer of {columns} inputs cannot be stored in int4: its rows are no multiple of 16")
        return replaced(self, block=block)


class Int4(Blockwise):
    """See the module's docstring."""

    options: EvenBlocks

    def __init__(self, name: str, options: BlockOptions, finer: tuple[str, ...], thresholds: Thresholds) -> None:
        """Raises `ExportError` for zero points, which engines do not take."""
        if not options.symmetric:
            raise ExportError("int4 with zero points is not what this target computes with: leave out asymmetric")
        super().__init__(name, options, finer, thresholds)

    @property
    def convolves(self) -> bool:
        """See `Format.convolves`: engines' convolutions compute in float16."""
        return False

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`."""
        options = self.options.fitted(shape[1])
        outputs = {
            f"{weight}.int4": TensorSpec(ir.DataType.INT4, shape),
            f"{weight}.int4_scales": TensorSpec(ir.DataType.FLOAT, (shape[0], options.blocks(shape[1]))),
        }
        return WeightJob(
            weight, outputs, lambda tensor: dict(zip(outputs, self.stored(quantize(tensor, options)), strict=True))
        )

    def stored(self, blocks: Blocks) -> list[Tensor]:
        """Signed values, two a byte, [out, in / 2], and scales."""
        return [pack_nibbles(blocks.quants.flatten(1) ^ FLIP), blocks.scales]

    def unpacked(self, made: Mapping[str, Tensor], columns: int) -> Blocks:
        """The inverse of `stored`."""
        quants, scales = made.values()
        codes = unpack_nibbles(quants) ^ FLIP
        return Blocks(codes.view(len(codes), -1, self.options.fitted(columns).block), scales, None)

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        rows, columns = matrix_shape(weight)
        job = self.pack(str(weight.name), (rows, columns))
        attributes = {"axis": 1, "block_size": self.options.fitted(columns).block}
        wide = insert_before(node, "DequantizeLinear", declare_outputs(model, job), attributes)
        product(node, node.inputs[0], wide)
        drop_unused(model, weight)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`: activations are not rounded."""
        columns = weight.shape[1]
        options = self.options.fitted(columns)
        stored = quantize(weight, options) if made is None else self.unpacked(made, columns)
        return linear(x, dequantize(stored, options, columns))


FORMAT = Int4("int4", EvenBlocks(bits=4, block=64, signed_scales=False), finer=(), thresholds=FOUR)
