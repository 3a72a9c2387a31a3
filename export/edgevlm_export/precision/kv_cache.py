"""How the KV cache is stored: in the graph's own type, or in int8 by ONNX Runtime's GroupQueryAttention.

The operator rotates, quantizes and stores new keys and values itself, and multiplies with the stored integers; scales
are constants of the graph, calibrated at export (`edgevlm_export.calibration.kv_ranges`). Nothing else in the graph
changes, whatever form its queries, keys and values come in, but that others who read the cache multiply by the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from edgevlm_export.graphs.edit import MICROSOFT
from edgevlm_runtime.errors import ExportError

Scales = tuple[Tensor, Tensor]
"""Of a layer's keys and values: float32 [1], or [kv_heads * head_dim]."""

STEPS = 127
SMALLEST = 1e-9
"""No scale is zero."""
_KEY_SCALE = 12
"""Place of GroupQueryAttention's `k_scale` among its inputs; `v_scale` follows."""
_PRESENT = 1
"""Place of the keys among its outputs; the values follow."""
_QUANT_TYPES = {"tensor": "PER_TENSOR", "channel": "PER_CHANNEL"}


@dataclass(frozen=True, slots=True)
class KVPrecision:
    """One way of holding the cache."""

    dtype: str | None = None
    """None is the type of the graph's activations."""
    scales: str | None = None
    """What shares a scale in int8: "tensor" or "channel"."""


FLOAT = KVPrecision()
KV_PRECISIONS: dict[str, KVPrecision] = {
    "fp32": FLOAT,
    "int8": KVPrecision("int8", "tensor"),
    "int8:channel": KVPrecision("int8", "channel"),
}
"""What `--kv` takes."""


def get_kv_precision(name: str, dialect: str = "ort") -> KVPrecision:
    """The one called `name`. Raises `ExportError` for an unknown one, and for one that the dialect's engines lack."""
    if name not in KV_PRECISIONS:
        raise ExportError(f"unknown precision of the KV cache: {name}: known are {', '.join(KV_PRECISIONS)}")
    if dialect != "ort":
        raise ExportError(f"KV cache in {name} is for ONNX Runtime alone: leave out --kv, or --target")
    return KV_PRECISIONS[name]


def quantize_cache(model: ir.Model, shared: str, scales: Mapping[int, Scales]) -> None:
    """Let a lowered decoder keep its cache in int8, in place. `scales` by layer; `shared`: what shares one.

    Raises `ExportError` when the graph has a cache that is not GroupQueryAttention's.
    """
    ports = {str(value.name): value for value in (*model.graph.inputs, *model.graph.outputs)}
    found: set[int] = set()
    for node in list(model.graph):
        if (node.domain, node.op_type) != (MICROSOFT, "GroupQueryAttention"):
            continue
        past = node.inputs[3]
        assert past is not None
        layer = int(str(past.name).split(".")[1])
        _quantize(model, node, shared, f"kv_scales.{layer}", scales[layer])
        for part in ("key", "value"):
            for name in (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"):
                ports[name].type = ir.TensorType(ir.DataType.INT8)
        found.add(layer)
    if found != set(scales):
        raise ExportError("a KV cache in int8 needs GroupQueryAttention in every layer: leave out --kv")


def _quantize(model: ir.Model, node: ir.Node, shared: str, name: str, scales: Scales) -> None:
    if len(node.inputs) < _KEY_SCALE + 2:
        node.resize_inputs(_KEY_SCALE + 2)
    for place, part in enumerate(("key", "value")):
        value = ir.Value(name=f"{name}.{part}")
        value.const_value = ir.tensor(scales[place].float().numpy(), name=value.name)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(list(scales[place].shape))
        model.graph.register_initializer(value)
        node.replace_input_with(_KEY_SCALE + place, value)
        _widen_readers(node, node.outputs[_PRESENT + place], scales[place])
    kind = _QUANT_TYPES[shared]
    for attribute in (
        ir.AttrString("k_quant_type", kind),
        ir.AttrString("v_quant_type", kind),
        ir.AttrInt64("kv_cache_bit_width", 8),
    ):
        node.attributes[attribute.name] = attribute


def _widen_readers(node: ir.Node, present: ir.Value, scale: Tensor) -> None:
    """Let the operators beside the attention that read slices of the cache (`dialects.blockwise`) have its values."""
    channels = (node.attributes["kv_num_heads"].as_int(), 1, -1) if scale.numel() > 1 else (1,)
    steps = scale.float().reshape(channels).numpy()
    for reader in [user for user in present.consumers() if user.op_type == "Slice"]:
        assert reader.graph is not None
        cached = reader.outputs[0]
        users = list(cached.uses())
        constant = ir.node("Constant", [], attributes={"value": ir.tensor(steps)})
        cast = ir.node("Cast", [cached], attributes={"to": ir.DataType.FLOAT})
        wide = ir.node("Mul", [cast.outputs[0], constant.outputs[0]])
        reader.graph.insert_after(reader, [constant, cast, wide])
        for user, place in users:
            user.replace_input_with(place, wide.outputs[0])


def stored(rows: Tensor, scale: Tensor) -> NDArray[np.int8]:
    """Keys or values of a layer [kv_heads, S, head_dim] as the operator stores them: rounded to even, saturated."""
    steps = scale if scale.numel() == 1 else scale.reshape(rows.shape[0], 1, rows.shape[2])
    quantized: NDArray[np.int8] = (rows / steps).round().clamp(-STEPS - 1, STEPS).numpy().astype(np.int8)
    return quantized
