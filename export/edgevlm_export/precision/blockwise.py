"""Block-wise integers as ONNX Runtime multiplies them: com.microsoft::MatMulNBits.

It quantizes activations block by block as well (accuracy level 4), so an outlier spoils no more than its own block.
Weights lie row by row, [out, blocks, bytes per block]: a table of embeddings can be read from the LM head's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from edgevlm_export.graphs.edit import MICROSOFT, Attributes, Rows, replace
from edgevlm_export.precision.base import (
    Format,
    Made,
    TableLayout,
    TensorSpec,
    WeightJob,
    declare_outputs,
    drop_unused,
    matrix_shape,
    weight_of,
)
from edgevlm_export.precision.blocks import BlockOptions, Blocks, dequantize, pack_nibbles, quantize, unpack_nibbles
from edgevlm_export.precision.thresholds import EIGHT, FOUR
from edgevlm_runtime.bundle.certificate import Thresholds
from edgevlm_runtime.errors import ExportError

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy level: activations in int8, one scale per block."""
BLOCK_STEPS = 127
"""Symmetric int8 at that level."""
BIAS = 5
"""Which input of MatMulNBits is the bias."""


class Blockwise(Format):
    """See the module's docstring."""

    def __init__(self, name: str, options: BlockOptions, finer: tuple[str, ...], thresholds: Thresholds) -> None:
        super().__init__(name, table=name, finer=finer, thresholds=thresholds)
        self.options = options

    @property
    def calibrated(self) -> bool:
        """See `Format.calibrated`."""
        return self.options.calibrated

    @property
    def convolves(self) -> bool:
        """See `Format.convolves`."""
        return True

    def configured(self, text: str) -> Blockwise:
        """The same with options from text: "block=N", "symmetric", "asymmetric", "nearest", by comma.

        Raises `ExportError`.
        """
        options = self.options
        for option in text.split(","):
            key, _, value = option.partition("=")
            if key == "block" and value.isdecimal():
                options = replaced(options, block=int(value))
            elif option in ("symmetric", "asymmetric"):
                options = replaced(options, symmetric=option == "symmetric")
            elif option == "nearest":
                options = replaced(options, nearest=True)
            else:
                raise ExportError(
                    f"unknown option of {self.name}: {option!r}: known are block=N, symmetric, asymmetric, nearest"
                )
        return type(self)(f"{self.name}:{text}", options, self.finer, self.thresholds)

    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """See `Format.pack`."""
        rows, columns = shape
        options = self.options.fitted(columns)
        blocks = options.blocks(columns)
        quants, scales, zeros = (f"{weight}.{part}" for part in ("quants", "scales", "zero_points"))
        outputs = {
            quants: TensorSpec(ir.DataType.UINT8, (rows, blocks, options.block * options.bits // 8)),
            scales: TensorSpec(ir.DataType.FLOAT, (rows, blocks)),
        }
        if not options.symmetric:
            outputs[zeros] = TensorSpec(ir.DataType.UINT8, (rows, -(-blocks * options.bits // 8)))

        def make(tensor: Tensor) -> dict[str, Tensor]:
            return dict(zip(outputs, self.stored(quantize(tensor, options)), strict=True))

        table = TableLayout(f"uint{options.bits}", quants, scales, zeros if zeros in outputs else None, options.block)
        return WeightJob(weight, outputs, make, table)

    def stored(self, blocks: Blocks) -> list[Tensor]:
        """The tensors of `pack`'s outputs."""

        def packed(values: Tensor) -> Tensor:
            return values if self.options.bits == 8 else pack_nibbles(values)

        return [packed(blocks.quants), blocks.scales] + ([] if blocks.zeros is None else [packed(blocks.zeros)])

    def unpacked(self, made: Mapping[str, Tensor], columns: int) -> Blocks:
        """The inverse of `stored`: the initializers of a weight with `columns` inputs, by name."""
        options = self.options.fitted(columns)
        parts = {name.rpartition(".")[2]: tensor for name, tensor in made.items()}

        def whole(values: Tensor, length: int) -> Tensor:
            return values if options.bits == 8 else unpack_nibbles(values)[..., :length]

        zeros = None if options.symmetric else whole(parts["zero_points"], options.blocks(columns))
        return Blocks(whole(parts["quants"], options.block), parts["scales"], zeros)

    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """See `Format.lower`."""
        weight = weight_of(node)
        rows, columns = matrix_shape(weight)
        job = self.pack(str(weight.name), (rows, columns))
        x, _, *bias = node.inputs
        attributes: Attributes = {
            "K": columns,
            "N": rows,
            "bits": self.options.bits,
            "block_size": self.options.fitted(columns).block,
            "accuracy_level": INT8_ACTIVATIONS,
        }
        inputs = [x, *declare_outputs(model, job)]
        if bias:  # after zero points and group indices, which there may not be
            inputs += [None] * (BIAS - len(inputs)) + bias
        replace(node, "MatMulNBits", inputs, attributes, MICROSOFT)
        drop_unused(model, weight)
        return job

    def simulate(
        self, x: Tensor, weight: Tensor, made: Made = None, rows: Rows = Rows.ANY, together: int | None = None
    ) -> Tensor:
        """See `Format.simulate`."""
        columns = weight.shape[1]
        options = self.options.fitted(columns)
        stored = quantize(weight, options) if made is None else self.unpacked(made, columns)
        blocks = pad(x, (0, options.blocks(columns) * options.block - columns)).unflatten(-1, (-1, options.block))
        steps = blocks.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / BLOCK_STEPS
        even = ((blocks / steps).round() * steps).flatten(-2)[..., :columns]
        return linear(even, dequantize(stored, options, columns))


INT8B = Blockwise("int8b", BlockOptions(bits=8, block=128), finer=("fp32",), thresholds=EIGHT)
"""int8 in blocks of 128: the most faithful of the small formats, and the fastest int8 for one row (decoding)."""
INT4 = Blockwise("int4", BlockOptions(bits=4, block=32, symmetric=False), finer=("int8b", "fp32"), thresholds=FOUR)
"""int4 in blocks of 32 with zero points."""
