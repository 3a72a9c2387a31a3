"""A lowered graph whose values are float32, made into one whose values are float16.

Networks of TensorRT are strongly typed: the graph's types are the types computed in. The caches, which stay on the
device, become float16 as well; the other inputs and outputs keep their float32, with a Cast behind and before them.
What cosines and sines are made from stays float32: float16 cannot tell positions apart beyond 2048. So does what a
recurrence carries from position to position, where every rounding would stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import insert_before
from edgevlm_export.precision.base import WeightJob

CACHES = ("past_key_values.", "present.")
EXACT = ("Cos", "Sin")
"""Operators computed in float32, with everything before them."""
RECURRENT = "Scan"
"""Computed in float32 by itself: what it is given is widened."""
LIMIT = float(np.finfo(np.float16).max)


def to_float16(model: ir.Model, jobs: Sequence[WeightJob]) -> tuple[WeightJob, ...]:
    """Convert `model` in place; returns `jobs` with tables of embeddings told what they have become."""
    recurrent = {node for node in model.graph if node.op_type == RECURRENT}
    exact = _before_trigonometry(model) | recurrent
    _retype_initializers(model, exact)
    for node in list(model.graph):
        if node in exact:
            _cast_for_others(node.outputs, exact, model)
        else:
            _retype_node(node)
    for node in recurrent:
        _widen(node)
    _cast_inputs(model, exact)
    _cast_outputs(model)
    return tuple(_told(job, model) for job in jobs)


def _before_trigonometry(model: ir.Model) -> set[ir.Node]:
    """Cosines, sines, and every node that they depend on."""
    found: set[ir.Node] = set()
    waiting = [node for node in model.graph if node.op_type in EXACT]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]
    return found


def _retype_initializers(model: ir.Model, exact: set[ir.Node]) -> None:
    for value in list(model.graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT:
            continue
        if any(user in exact for user, _ in value.uses()):
            _cast_for_others([value], exact, model)
            continue
        if value.const_value is not None:
            half = value.const_value.numpy().clip(-LIMIT, LIMIT).astype(np.float16)
            value.const_value = ir.tensor(half, name=value.name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)


def _retype_node(node: ir.Node) -> None:
    """Types that a node names in its attributes, and those of its outputs."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
    constant = node.attributes.get("value")
    if (
        constant is not None
        and constant.type == ir.AttributeType.TENSOR
        and constant.as_tensor().dtype == ir.DataType.FLOAT
    ):
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(constant.as_tensor().numpy().astype(np.float16)))
    for value in node.outputs:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _cast_for_others(values: Sequence[ir.Value], exact: set[ir.Node], model: ir.Model) -> None:
    """Users outside of `exact` see these float32 values as float16."""
    for value in values:
        users = [(node, index) for node, index in value.uses() if node not in exact]
        if value.dtype not in (None, ir.DataType.FLOAT) or not users:
            continue
        cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT16})
        maker = value.producer()
        if maker is None:
            model.graph.insert_before(model.graph[0], cast)
        else:
            model.graph.insert_after(maker, cast)
        for node, index in users:
            node.replace_input_with(index, cast.outputs[0])


def _widen(node: ir.Node) -> None:
    """float16 inputs of a node that computes in float32."""
    for index, value in enumerate(node.inputs):
        if value is not None and not value.is_graph_input() and value.dtype != ir.DataType.FLOAT:
            node.replace_input_with(index, insert_before(node, "Cast", [value], {"to": ir.DataType.FLOAT}))


def _cast_inputs(model: ir.Model, exact: set[ir.Node]) -> None:
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            if str(value.name).startswith(CACHES):
                value.type = ir.TensorType(ir.DataType.FLOAT16)
            else:
                _cast_for_others([value], exact, model)


def _cast_outputs(model: ir.Model) -> None:
    for place, value in enumerate(list(model.graph.outputs)):
        if value.dtype != ir.DataType.FLOAT16 or str(value.name).startswith(CACHES):
            continue
        wide = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})
        output = wide.outputs[0]
        output.name, output.shape, output.type = value.name, value.shape, ir.TensorType(ir.DataType.FLOAT)
        value.name = f"{value.name}.float16"
        model.graph.append(wide)
        model.graph.outputs[place] = output


def _told(job: WeightJob, model: ir.Model) -> WeightJob:
    """A table whose rows have become float16 says so."""
    rows = model.graph.initializers.get(job.table.rows) if job.table is not None else None
    if job.table is None or job.table.dtype != "float32" or rows is None or rows.dtype != ir.DataType.FLOAT16:
        return job
    return replace(job, table=replace(job.table, dtype="float16"))
