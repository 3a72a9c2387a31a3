"""Rotates the values of each attention head, so that the output projection reads even activations (also QuaRot).

Attention is linear in its values: v_proj gives each head v H, o_proj takes W H. Nothing is added to the graph.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import onnx_ir as ir
from torch import Tensor

from edgevlm_export.graphs.edit import weight_name
from edgevlm_export.graphs.transforms.edits import Edit, Edits
from edgevlm_export.graphs.transforms.orthogonal import Orthogonal
from edgevlm_export.graphs.transforms.residual import is_op


def transform(model: ir.Model, kept: AbstractSet[str], edits: Edits) -> bool:
    """See `Transform`."""
    found = [pair for node in model.graph if is_op(node, "CausalAttention") and (pair := _projections(node))]
    for value, output, head_dim in found:
        rotation = Orthogonal(head_dim)
        edits.add(weight_name(value), _writing(rotation))
        if len(value.inputs) > 2:
            edits.add(str(value.inputs[2].name), _reading(rotation))  # type: ignore[union-attr]
        edits.add(weight_name(output), _reading(rotation))
    return bool(found)


def _projections(attention: ir.Node) -> tuple[ir.Node, ir.Node, int] | None:
    """v_proj, o_proj and the head's width, where the two are linear layers with nothing between."""
    values, result = attention.inputs[2], attention.outputs[0]
    past = attention.inputs[3]
    producer = values.producer() if values is not None else None
    consumers = result.consumers()
    if past is None or past.shape is None or not is_op(producer, "Linear") or len(consumers) != 1:
        return None
    alone = values is not None and len(values.consumers()) == 1 and is_op(consumers[0], "Linear")
    if not alone or producer is None:
        return None
    return producer, consumers[0], int(str(past.shape[-1]))


def _reading(rotation: Orthogonal) -> Edit:
    """Heads lie along the last axis."""

    def edit(weight: Tensor, _: object) -> Tensor:
        return rotation.apply(weight.unflatten(-1, (-1, rotation.width))).flatten(-2)

    return edit


def _writing(rotation: Orthogonal) -> Edit:
    """Heads lie along the first axis."""

    def edit(weight: Tensor, _: object) -> Tensor:
        heads = weight.t().unflatten(-1, (-1, rotation.width))
        return rotation.apply(heads).flatten(-2).t().contiguous()

    return edit
