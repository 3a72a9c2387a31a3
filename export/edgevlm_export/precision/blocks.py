"""Block-wise integers: `block` neighbouring inputs of one output share a scale, and where wanted a zero point."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as replaced

import torch
from torch import Tensor

from edgevlm_export.slices import slices
from edgevlm_runtime.errors import ExportError

SMALLEST = 32
"""Blocks are not made smaller than this to save padding."""
PADDING = 16
"""At most this part of a row may be padding, where the block can be made smaller."""
CALIBRATED_BITS = 4


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How blocks are quantized. Raises `ExportError` for what the operator does not take."""

    bits: int
    block: int
    symmetric: bool = True
    """No zero points: values lie around the middle of the range."""
    signed_scales: bool = True
    """Symmetric four bits may have negative scales, which puts the extreme value on the longer side."""
    nearest: bool = False
    """Four bits are rounded to the nearest value, without samples, as eight always are."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ExportError(f"cannot hold weights in {self.bits} bits: choose 4 or 8")
        if self.block not in (16, 32, 64, 128, 256):
            raise ExportError(f"block size {self.block} is not supported: choose 16, 32, 64, 128 or 256")

    @property
    def calibrated(self) -> bool:
        """Whether samples say how to round: four bits are too few to take the nearest value."""
        return self.bits == CALIBRATED_BITS and not self.nearest

    @property
    def middle(self) -> int:
        """The stored value that stands for zero when symmetric."""
        return 1 << (self.bits - 1)

    @property
    def top(self) -> int:
        """The largest stored value."""
        return (1 << self.bits) - 1

    def fitted(self, columns: int) -> BlockOptions:
        """The same with a smaller block where rows of `columns` values would need much padding."""
        block = self.block
        while block > SMALLEST and -columns % block * PADDING > columns:
            block //= 2
        return replaced(self, block=block)

    def blocks(self, columns: int) -> int:
        """Blocks in a row of `columns` values; the last one may be padded."""
        return -(-columns // self.block)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix: value = (quant - zero) * scale. quants uint8 [rows, blocks, block], unpacked."""

    quants: Tensor
    scales: Tensor
    """float32 [rows, blocks]."""
    zeros: Tensor | None
    """uint8 [rows, blocks]; None when symmetric."""


def split(weight: Tensor, options: BlockOptions) -> Tensor:
    """[rows, columns] to float32 [rows, blocks, block], the last block padded with zeros."""
    rows, columns = weight.shape
    blocks = options.blocks(columns)
    padded = torch.nn.functional.pad(weight.float(), (0, blocks * options.block - columns))
    return padded.view(rows, blocks, options.block)


def quantize(weight: Tensor, options: BlockOptions) -> Blocks:
    """Round each value of `weight` [rows, columns] to the nearest step of its block."""
    parts = [_quantize(rows, options) for rows in slices(weight)]
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return Blocks(
        torch.cat([part.quants for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat(zeros) if zeros else None,
    )


def _quantize(rows: Tensor, options: BlockOptions) -> Blocks:
    blocks = split(rows, options)
    scales, zeros = scale_blocks(blocks, options)
    return Blocks(round_blocks(blocks, scales, zeros, options), scales, zeros)


def scale_blocks(blocks: Tensor, options: BlockOptions) -> tuple[Tensor, Tensor | None]:
    """Scales [rows, blocks], and zero points when asymmetric, that just cover every block [rows, blocks, block]."""
    if options.symmetric:
        # the extreme value takes the one code more that the negative side has
        signed = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))[..., 0]
        scales = -signed / options.middle
        if options.bits == 8 or not options.signed_scales:
            scales = blocks.abs().amax(-1) / (options.middle - 1)
        return scales, None
    low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
    scales = (high - low) / options.top
    return scales, (-low / divisor(scales)).round().clamp(0, options.top).to(torch.uint8)


def divisor(scales: Tensor) -> Tensor:
    """The scales to divide by: a block of zeros has scale zero, so that it stays zero whatever the operator rounds."""
    return torch.where(scales.abs() < torch.finfo(torch.float32).tiny, torch.ones_like(scales), scales)


def round_blocks(blocks: Tensor, scales: Tensor, zeros: Tensor | None, options: BlockOptions) -> Tensor:
    """Nearest stored values, uint8 [rows, blocks, block]."""
    zero = options.middle if zeros is None else zeros[..., None].float()
    return (blocks / divisor(scales)[..., None] + zero).round().clamp(0, options.top).to(torch.uint8)


def dequantize(blocks: Blocks, options: BlockOptions, columns: int) -> Tensor:
    """What the stored values stand for, float32 [rows, columns]."""
    zero = options.middle if blocks.zeros is None else blocks.zeros[..., None].float()
    values = (blocks.quants.float() - zero) * blocks.scales[..., None]
    return values.flatten(1)[:, :columns]


def pack_nibbles(values: Tensor) -> Tensor:
    """Pairs along the last axis into bytes, the first in the low half; an odd one out is followed by zero."""
    if values.shape[-1] % 2:
        values = torch.nn.functional.pad(values, (0, 1))
    return values[..., 0::2] | (values[..., 1::2] << 4)


def unpack_nibbles(values: Tensor) -> Tensor:
    """The inverse of `pack_nibbles`: bytes along the last axis to twice as many values."""
    return torch.stack([values & 15, values >> 4], dim=-1).flatten(-2)
