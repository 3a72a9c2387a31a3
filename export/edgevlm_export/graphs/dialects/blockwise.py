"""Tokens that see later ones, beside an attention operator that is causal and nothing else.

GroupQueryAttention writes the KV cache and answers for every row as if attention were causal. What it gives for the
rows that are in a block is then replaced by attention from standard operators, over as much of the cache as the mask
covers. While text is decoded there is no such row and no column: every operator here gets empty tensors.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import MICROSOFT
from edgevlm_runtime.errors import UnsupportedModel

PAST = slice(3, 5)
"""Places of a cache among GroupQueryAttention's inputs."""
LEAST = np.float32(-3.0e38)
"""Stands for minus infinity: it needs no row with something to see."""


def attend(attention: ir.Node, rows: ir.Value | None, mask: ir.Value | None) -> None:
    """Replace the rows `rows` [B] of a GroupQueryAttention's output [1, S, heads * dim] by attention over the first T'
    positions of its cache, as `mask` [B, T'] says. Queries and keys come rotated.

    Raises `UnsupportedModel` where the operator rotates.
    """
    if attention.attributes["do_rotary"].as_int():
        raise UnsupportedModel("tokens that see later ones need queries that the graph rotates")
    heads, kv_heads = (attention.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
    query, output = attention.inputs[0], attention.outputs[0]
    keys, values = attention.outputs[1:] or attention.inputs[PAST]
    assert query is not None
    assert keys is not None
    assert keys.shape is not None
    dim = keys.shape[3]
    assert isinstance(dim, int)
    users = list(output.uses())
    op = _After(attention)

    seen = op("Shape", mask, start=1, end=2)
    keys, values = (op("Slice", part, op.ints(0), seen, op.ints(2)) for part in (keys, values))
    picked = op("Reshape", op("Gather", query, rows, axis=1), op.ints(1, -1, heads, dim))
    by_head = op("Transpose", picked, perm=[0, 2, 1, 3])
    grouped = op("Reshape", by_head, op.ints(1, kv_heads, -1, dim))  # the heads of a group, one below the other
    scale = attention.attributes["scale"].as_float()
    scores = op("FusedMatMul", grouped, keys, transB=1, alpha=scale, domain=MICROSOFT)
    if "softcap" in attention.attributes:
        cap = op.constant(np.float32(attention.attributes["softcap"].as_float()))
        scores = op("Mul", op("Tanh", op("Div", scores, cap)), cap)
    group = heads // kv_heads
    visible = mask if group == 1 else op("Concat", *[mask] * group, axis=0)
    weights = op("Softmax", op("Where", visible, scores, op.constant(LEAST)), axis=-1)
    attended = op("Reshape", op("MatMul", weights, values), op.ints(1, heads, -1, dim))
    found = op("Reshape", op("Transpose", attended, perm=[0, 2, 1, 3]), op.ints(-1, heads * dim))
    places = op("Unsqueeze", rows, op.ints(1))
    replaced = op("Unsqueeze", op("ScatterND", op("Squeeze", output, op.ints(0)), places, found), op.ints(0))
    replaced.type, replaced.shape = output.type, output.shape
    for node, index in users:
        node.replace_input_with(index, replaced)


class _After:
    """Adds operators one behind the other, from a node on."""

    def __init__(self, node: ir.Node) -> None:
        self._last = node

    def __call__(
        self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: float | list[int]
    ) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes=attributes, domain=domain)
        return self._add(node)

    def ints(self, *numbers: int) -> ir.Value:
        """A constant int64 [n]."""
        return self.constant(np.array(numbers, np.int64))

    def constant(self, value: np.ndarray | np.generic) -> ir.Value:
        """A constant."""
        return self._add(ir.node("Constant", [], attributes={"value": ir.tensor(np.asarray(value))}))

    def _add(self, node: ir.Node) -> ir.Value:
        graph = self._last.graph
        assert graph is not None
        graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]
