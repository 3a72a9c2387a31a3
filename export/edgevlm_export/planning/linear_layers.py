"""The linear layers of a traced graph: who holds them, and what they become."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgevlm_export.graphs.edit import PRODUCT, Rows, gives_logits, rows_of, weight_name
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.precision import get_format
from edgevlm_export.precision.base import WeightJob
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.plan import GraphPrecision


def convolves(precision: GraphPrecision, weight: str) -> bool:
    """Whether a convolution over single places is to be a linear layer: its format is one for these, or the graph's
    is, where single layers in float32 count as linear layers too."""
    names = (precision.default, precision.format_name(weight, None))
    return any(get_format(name, precision.dialect).convolves for name in names)


def formats(graph: ir.Model, precision: GraphPrecision) -> dict[str, str]:
    """Weights of all linear layers, with the names of their formats."""
    return {weight_name(node): precision.format_name(weight_name(node), _role(node)) for node in _linear_layers(graph)}


def rows(graph: ir.Model) -> dict[str, Rows]:
    """Weights of all linear layers, with what is known of the rows that they multiply."""
    return {weight_name(node): rows_of(node.inputs[0]) for node in _linear_layers(graph)}


def lower(graph: ir.Model, formats: Mapping[str, str], dialect: str) -> dict[str, WeightJob]:
    """Lower every linear layer to its format's operators; the jobs that make their weights, by name."""
    jobs: dict[str, WeightJob] = {}
    for node in _linear_layers(graph):
        weight = weight_name(node)
        jobs[weight] = get_format(formats[weight], dialect).lower(graph, node)
    return jobs


def calibrated(names: Mapping[str, str], dialect: str) -> dict[str, Blockwise]:
    """Weights that calibration rounds, with their formats."""
    formats = {weight: get_format(name, dialect) for weight, name in names.items()}
    return {weight: fmt for weight, fmt in formats.items() if isinstance(fmt, Blockwise) and fmt.calibrated}


def _linear_layers(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if (node.domain, node.op_type) == (DOMAIN, "Linear")]


def _role(node: ir.Node) -> str | None:
    """What a linear layer is in its graph (`precision.plan.ROLES`)."""
    if gives_logits(node):
        return "head"
    x = node.inputs[0]
    source = x.producer() if x is not None else None
    product = source is not None and source.op_type == "Mul"
    return "mlp_down" if product or (x is not None and PRODUCT in x.meta) else None
