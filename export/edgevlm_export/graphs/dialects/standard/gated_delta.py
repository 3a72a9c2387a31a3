"""Linear attention by the gated delta rule as a Scan over the positions, its matrices float32 throughout.

One position after another: no slower than any other way while text is decoded, but in a prompt.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import constant_before, insert_before, supersede


def gated_delta(node: ir.Node) -> None:
    """See `ops.gated_delta`."""
    q, k, v, log_decay, beta, past = node.inputs
    assert past is not None
    assert past.shape is not None
    heads, key, value = (int(dim) for dim in list(past.shape)[1:])  # type: ignore[arg-type]
    scale = constant_before(node, np.array(node.attributes["scale"].as_float(), np.float32))
    groups = node.attributes["key_heads"].as_int()
    q, k = (_repeated(node, x, groups, heads // groups, key) for x in (insert_before(node, "Mul", [q, scale], {}), k))
    given = [
        _reshaped(node, x, 1, -1, heads, *shape)
        for x, shape in (
            (q, (1, key)),
            (k, (1, key)),
            (k, (key, 1)),
            (v, (1, value)),
            (log_decay, (1, 1)),
            (beta, (1, 1)),
        )
    ]
    count = len(given)
    scan = ir.node(
        "Scan",
        [past, *given],
        attributes={
            "body": _one_position(f"{node.outputs[1].name}.scan", heads, key, value),
            "num_scan_inputs": count,
            "scan_input_axes": [1] * count,
            "scan_output_axes": [1],
        },
        num_outputs=2,
    )
    assert node.graph is not None
    node.graph.insert_before(node, scan)
    present, read = scan.outputs
    read.type = ir.TensorType(ir.DataType.FLOAT)
    supersede(node, [_reshaped(node, read, 1, -1, heads * value), present])


def _reshaped(node: ir.Node, x: ir.Value | None, *shape: int) -> ir.Value:
    return insert_before(node, "Reshape", [x, constant_before(node, np.array(shape, np.int64))], {})


def _repeated(node: ir.Node, x: ir.Value | None, heads: int, times: int, dim: int) -> ir.Value | None:
    """[1, S, heads*dim], each head `times` times, one beside the other, where that is more than once."""
    if times == 1:
        return x
    apart = _reshaped(node, x, 1, -1, heads, 1, dim)
    return insert_before(node, "Expand", [apart, constant_before(node, np.array([1, 1, 1, times, 1], np.int64))], {})


def _one_position(name: str, heads: int, key: int, value: int) -> ir.Graph:
    """Matrices and what one position brings, to the matrices behind it and what is read of them. All names begin with
    `name`, for they must differ from those around."""

    def part(part: str, *shape: int) -> ir.Value:
        shaped = ir.Shape([1, heads, *shape])
        return ir.Value(name=f"{name}.{part}", type=ir.TensorType(ir.DataType.FLOAT), shape=shaped)

    past, q, k, column = part("past", key, value), part("q", 1, key), part("k", 1, key), part("k_column", key, 1)
    v, log_decay, beta = part("v", 1, value), part("log_decay", 1, 1), part("beta", 1, 1)
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value, into: ir.Value | None = None) -> ir.Value:
        made = into or ir.Value(name=f"{name}.{len(nodes)}")
        nodes.append(ir.node(kind, list(inputs), outputs=[made]))
        return made

    faded = op("Mul", past, op("Exp", log_decay))
    error = op("Mul", op("Sub", v, op("MatMul", k, faded)), beta)
    present = op("Add", faded, op("Mul", column, error), into=part("present", key, value))
    read = op("MatMul", q, present, into=part("read", 1, value))
    return ir.Graph([past, q, k, column, v, log_decay, beta], [present, read], nodes=nodes, name=name)
