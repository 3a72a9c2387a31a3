"""The decoder's causal attention over a cache of fixed length, and the graph inputs that go with it.

Of the neutral graph's inputs, `seqlens_k` and `total_sequence_length` give way to

    write_indices                int64 [1]           where the S new keys and values go
    position_ids                 int64 [1, S]        rows of the rotary tables, where the operator rotates
    attention_mask               bool [1, 1, S, T]   which cache slots each new token sees
    attention_mask_window_W      likewise            of layers with a sliding window of W, where others have another

and `max_tokens` of the caches becomes T, the longest context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgevlm_export.graphs.dialects.standard.attention import merge_heads, split_heads
from edgevlm_export.graphs.edit import insert_before, supersede
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.source import GraphSource
from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.decoding.step_inputs import BLOCK_ROWS
from edgevlm_runtime.errors import UnsupportedModel

CACHE_ROWS = "max_tokens"
"""The dynamic dimension that becomes fixed."""
REPLACED = ("seqlens_k", "total_sequence_length")


def lower(model: ir.Model, source: GraphSource) -> StepInputs:
    """Replace every CausalAttention and SharedAttention. Returns what the decoder's inputs are; a graph without any is
    left as it is.

    Raises `UnsupportedModel` for attention that a mask cannot express.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN and node.op_type in LOWERINGS]
    if not nodes:
        return StepInputs()
    if any("softcap" in node.attributes for node in nodes):
        raise UnsupportedModel("attention with soft-capped logits is not in this target's operators: use --target onnx")
    rows = source.fixed[CACHE_ROWS]
    masks = mask_names([_window(node) for node in nodes])
    inputs = _interface(model, masks, rows, rotates=source.rotary == "inside")
    for node in nodes:
        LOWERINGS[node.op_type](node, inputs, inputs[masks[_window(node)]])
    for value in [value for value in model.graph.inputs if value.name in (*REPLACED, BLOCK_ROWS, *source.masks)]:
        model.graph.inputs.remove(value)
    return StepInputs("static", {name: window for window, name in masks.items()})


def mask_names(windows: Sequence[int]) -> dict[int, str]:
    """An input's name for each distinct window; the widest (0 is none at all) has the plain name."""
    distinct = sorted(set(windows), key=lambda window: (window > 0, -window))
    return {w: "attention_mask" if n == 0 else f"attention_mask_window_{w}" for n, w in enumerate(distinct)}


def _window(node: ir.Node) -> int:
    return node.attributes["sliding_window"].as_int() if "sliding_window" in node.attributes else 0


def _interface(model: ir.Model, masks: dict[int, str], rows: int, rotates: bool) -> dict[str, ir.Value]:
    """Add the new inputs before the caches and fix the caches' length; new inputs by name."""
    made = {name: _input(name, ir.DataType.BOOL, [1, 1, "sequence", rows]) for name in masks.values()}
    made["write_indices"] = _input("write_indices", ir.DataType.INT64, [1])
    if rotates:
        made["position_ids"] = _input("position_ids", ir.DataType.INT64, [1, "sequence"])
    place = next(n for n, value in enumerate(model.graph.inputs) if value.name == REPLACED[0])
    for offset, value in enumerate(made.values()):
        model.graph.inputs.insert(place + offset, value)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if str(value.name).startswith(("past_key_values.", "present.")):
            assert value.shape is not None
            value.shape = ir.Shape([rows if axis == 2 else dim for axis, dim in enumerate(value.shape)])
    return made


def _input(name: str, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _causal_attention(node: ir.Node, given: Mapping[str, ir.Value], mask: ir.Value) -> None:
    """q, k and v [1, S, heads*dim]; new keys and values are written into the cache, which is then read whole."""
    q, k, v, past_k, past_v, _, _, *tables = node.inputs
    tables = [] if "blocks" in node.attributes else tables  # the rows in blocks are in the mask
    heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
    q, k, v = split_heads(node, q, heads), split_heads(node, k, kv_heads), split_heads(node, v, kv_heads)
    if tables:
        q, k = (insert_before(node, "RotaryEmbedding", [x, *tables, given["position_ids"]], {}) for x in (q, k))
    present = [
        insert_before(node, "TensorScatter", [past, new, given["write_indices"]], {"axis": -2, "mode": "linear"})
        for past, new in ((past_k, k), (past_v, v))
    ]
    supersede(node, [_attend(node, q, present, mask), *present])


def _shared_attention(node: ir.Node, given: Mapping[str, ir.Value], mask: ir.Value) -> None:
    """q [1, S, heads*dim]; a cache that an earlier layer has written."""
    q, *cache = node.inputs[:3]
    supersede(node, [_attend(node, split_heads(node, q, node.attributes["num_heads"].as_int()), cache, mask)])


def _attend(node: ir.Node, q: ir.Value | None, cache: Sequence[ir.Value | None], mask: ir.Value) -> ir.Value:
    attributes = {"scale": node.attributes["scale"].as_float()}
    return merge_heads(node, insert_before(node, "Attention", [q, *cache, mask], attributes))


LOWERINGS = {"CausalAttention": _causal_attention, "SharedAttention": _shared_attention}
