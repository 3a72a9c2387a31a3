"""Rotates the residual stream, so that no channel of it stands out (QuaRot, Ashkboos et al. 2024; SliceGPT).

Each RMSNorm's weight is folded into the linear layers that read it, so that the norm commutes with any orthogonal Q.
Then readers take W Q, writers give Q^T W (and b Q), and the stream carries x Q. It enters rotated by two small
products at each of the graph's inputs that are added to it (embeddings, and DeepStack's columns behind some layers);
the graphs' contract, embeddings in the model's own space, stays. An LM head of its own is a reader
like the others; one that is also the table of embeddings stays as it is, and the few selected rows are rotated back
before it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgevlm_export.graphs.edit import ROWS, Rows, constant_before, insert_before, weight_name
from edgevlm_export.graphs.transforms.edits import Edit, Edits, NotApplicable, Read
from edgevlm_export.graphs.transforms.orthogonal import Orthogonal
from edgevlm_export.graphs.transforms.residual import Norm, NormScale, ResidualStream, find_residual


def transform(model: ir.Model, kept: AbstractSet[str], edits: Edits) -> None:
    """See `Transform`."""
    stream = find_residual(model)
    if _shared(stream):
        raise NotApplicable("two layers on the residual stream share a weight")
    rotation = Orthogonal(stream.width)
    for entry in stream.entries:
        _enter(entry, rotation)
        edits.entries[str(entry.name)] = rotation.apply
    for norm in stream.norms:
        ones = constant_before(norm.node, np.ones(stream.width, np.float32))
        norm.node.replace_input_with(1, ones)
        norm.node.outputs[0].meta[ROWS] = Rows.EVEN
        leaves = any(weight_name(reader) in kept for reader in norm.readers)
        if not leaves:
            edits.add(norm.scale.weight, _one(norm.scale))
        for reader in norm.readers:
            if leaves:
                _leave(model, norm, reader, rotation, edits)
            else:
                edits.add(weight_name(reader), _reading(norm.scale, rotation))
    for writer in stream.writers:
        edits.add(weight_name(writer), _writing(rotation))
        if len(writer.inputs) > 2:
            edits.add(str(writer.inputs[2].name), lambda bias, _: rotation.apply(bias))  # type: ignore[union-attr]


def _shared(stream: ResidualStream) -> bool:
    """Whether two layers share a weight: it cannot be changed for one alone."""
    readers = [reader for norm in stream.norms for reader in norm.readers]
    names = [weight_name(layer) for layer in (*readers, *stream.writers)]
    return len(set(names)) < len(names)


def _reading(scale: NormScale, rotation: Orthogonal) -> Edit:
    def edit(weight: Tensor, read: Read) -> Tensor:
        return rotation.apply(weight * (read(scale.weight).float() + scale.offset))

    return edit


def _writing(rotation: Orthogonal) -> Edit:
    return lambda weight, _: rotation.apply(weight.t()).t().contiguous()


def _one(scale: NormScale) -> Edit:
    """The norm's weight once it is folded; the graph has a constant, PyTorch's module reads this."""
    return lambda weight, _: torch.full_like(weight, 1.0 - scale.offset)


def _enter(entry: ir.Value, rotation: Orthogonal) -> None:
    """An input of the graph times Q."""
    consumers = list(entry.uses())
    first = consumers[0].node
    signed = insert_before(first, "Mul", [entry, constant_before(first, rotation.signs)], {})
    rotated = _core(first, signed, rotation)
    rotated.shape, rotated.type = entry.shape, entry.type
    for use in consumers:
        use.node.replace_input_with(use.idx, rotated)


def _leave(model: ir.Model, norm: Norm, reader: ir.Node, rotation: Orthogonal, edits: Edits) -> None:
    """Undo the rotation before a layer that stays as it is, and multiply by the norm's weight, signs included."""
    x = reader.inputs[0]
    scale = model.graph.initializers[norm.scale.weight]
    signs = torch.from_numpy(rotation.signs)
    edits.add(norm.scale.weight, lambda weight, _: (weight + norm.scale.offset) * signs)
    edits.leave = rotation.undo
    original = insert_before(reader, "Mul", [_core(reader, x, rotation), scale], {})
    assert x is not None
    original.shape, original.type = x.shape, x.type
    reader.replace_input_with(0, original)


def _core(node: ir.Node, x: ir.Value | None, rotation: Orthogonal) -> ir.Value:
    """x (A x B), [1, S, width], before `node`."""
    a, b = (constant_before(node, factor) for factor in rotation.factors)
    blocks = insert_before(node, "Reshape", [x, constant_before(node, np.array([-1, *rotation.shape]))], {})
    product = insert_before(node, "MatMul", [a, insert_before(node, "MatMul", [blocks, b], {})], {})
    return insert_before(node, "Reshape", [product, constant_before(node, np.array([1, -1, rotation.width]))], {})
