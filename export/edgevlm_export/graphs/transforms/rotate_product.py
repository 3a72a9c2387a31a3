"""Rotates the product of a gated MLP, or of attention and its gate, in small blocks, so that the layer that reads it
sees even activations.

The product of gate and up has the largest outliers of a decoder, and no rotation of the residual stream reaches it.
So it is rotated where it is made: blocks of neighbouring channels are multiplied by one small orthogonal matrix, and
the layer takes W Q instead (QuaRot, Ashkboos et al. 2024, does so with one large Hadamard matrix). The cost is
2 * BLOCK operations per channel, a few per cent of the layer's own.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.graphs.edit import PRODUCT, ROWS, Rows, constant_before, gives_logits, insert_before, weight_name
from edgevlm_export.graphs.transforms.edits import Edits, NotApplicable
from edgevlm_export.graphs.transforms.orthogonal import Matrix, even
from edgevlm_export.graphs.transforms.residual import is_op

BLOCK = 64
"""Channels that are mixed; the largest power of two up to this that divides the width, so that the matrix is
Sylvester's, as where weights are mixed on a device (`edgevlm_runtime.bundle.blocks.mix`)."""

MIXING = 32
"""Blocks from this size on leave no channel that stands out."""


def transform(model: ir.Model, kept: AbstractSet[str], edits: Edits) -> None:
    """See `Transform`."""
    layers = [node for node in model.graph if is_op(node, "Linear") and _reads_product(node)]
    found = [layer for layer in layers if weight_name(layer) not in kept | edits.lent]
    if not found:
        raise NotApplicable("no linear layer reads a product of two others' results")
    for layer in found:
        x = layer.inputs[0]
        assert x is not None
        assert x.shape is not None
        width = int(str(x.shape[-1]))
        block = min(width & -width, BLOCK)
        rotation = even(block)
        edits.add(weight_name(layer), partial(_rotated, rotation))
        edits.inputs[weight_name(layer)] = partial(_rotated, rotation)
        edits.mixed[weight_name(layer)] = block
        blocks = insert_before(layer, "Reshape", [x, constant_before(layer, np.array([-1, block]))], {})
        mixed = insert_before(layer, "MatMul", [blocks, constant_before(layer, rotation.astype(np.float32))], {})
        rotated = insert_before(layer, "Reshape", [mixed, constant_before(layer, np.array([1, -1, width]))], {})
        rotated.shape, rotated.type = x.shape, x.type
        rotated.meta[PRODUCT] = True
        if block >= MIXING:
            rotated.meta[ROWS] = Rows.MIXED
        layer.replace_input_with(0, rotated)


def _reads_product(layer: ir.Node) -> bool:
    """Whether this layer's input is the product of two layers' results, and its own no output of the graph."""
    producer = layer.inputs[0].producer() if layer.inputs[0] is not None else None
    return producer is not None and producer.op_type == "Mul" and not gives_logits(layer)


def _rotated(rotation: Matrix, x: Tensor, _: object = None) -> Tensor:
    """Every block along the last axis, whether of a weight [out, in] or of what it multiplies."""
    matrix = torch.from_numpy(rotation).float()
    blocks: Tensor = x.float().unflatten(-1, (-1, len(matrix))) @ matrix
    return blocks.flatten(-2)
