"""One graph, planned: traced, simplified, transformed and lowered, before any weight is read.

Every initializer of a `GraphPlan` is known by name, type and shape, so its size on disk is known too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir
import torch

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.graphs import dialects, passes, pointwise
from edgevlm_export.graphs.edit import Rows
from edgevlm_export.graphs.source import GraphSource
from edgevlm_export.graphs.trace import trace
from edgevlm_export.graphs.transforms import get_transform
from edgevlm_export.graphs.transforms.edits import Edits, NotApplicable
from edgevlm_export.planning import linear_layers
from edgevlm_export.precision.base import TableLayout, WeightJob, as_stored
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.standard.activations import to_float16
from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.errors import CheckpointError, ExportError, UnsupportedModel

CONVERSIONS = {"float32": lambda graph, jobs: jobs, "float16": to_float16}
"""Type of the activations to what makes a lowered float32 graph have it."""


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What a graph takes from the decoder's data file."""

    shared: frozenset[str] = frozenset()
    """Initializers that are the decoder's too."""
    widened: Mapping[str, TableLayout] = field(default_factory=dict)
    """Weights whose initializers are made on the device, and of which of the decoder's."""
    mixed: Mapping[str, int] = field(default_factory=dict)
    """Those whose inputs this graph mixes, which the decoder does not, with how many channels together."""


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A lowered graph without weights, and the jobs that make them."""

    name: str
    model: ir.Model
    jobs: tuple[WeightJob, ...]
    precision: str
    exceptions: Mapping[str, str]
    transforms: tuple[str, ...]
    """Those of the precision plan that apply to this graph."""
    refused: Mapping[str, str]
    """Those that do not, with the reason."""
    edits: Edits
    formats: Mapping[str, str]
    """Weights of all linear layers, with the names of their formats."""
    rows: Mapping[str, Rows]
    """Likewise, with what is known of the rows that they multiply."""
    calibrated: Mapping[str, Blockwise]
    """Weights that calibration rounds (`edgevlm_export.calibration`), with their formats."""
    source: GraphSource
    activations: str
    """Type of the values between operators."""
    step_inputs: StepInputs
    """Of the decoder: what it is told about its cache."""
    borrowed: Borrowed = Borrowed()
    """What is not in its own data file."""

    @property
    def weight_bytes(self) -> int:
        """Size of the data file, without alignment."""
        given = self.borrowed.shared.union(*(job.outputs for job in self.jobs if job.source in self.borrowed.widened))
        values = self.model.graph.initializers.items()
        return sum(nbytes(value) for name, value in values if name not in given)

    @property
    def widened_bytes(self) -> int:
        """Memory of what is made on the device."""
        return sum(job.nbytes for job in self.jobs if job.source in self.borrowed.widened)

    @property
    def largest_bytes(self) -> int:
        """The largest single initializer."""
        return max((nbytes(value) for value in self.model.graph.initializers.values()), default=0)


def plan_graph(
    name: str,
    source: GraphSource,
    model: torch.nn.Module,
    precision: GraphPrecision,
    kept: AbstractSet[str] = frozenset(),
    lent: AbstractSet[str] = frozenset(),
) -> GraphPlan:
    """Trace, simplify, transform and lower one graph, its layers stored as `precision` says.

    No transform changes the weights named in `kept`; those in `lent` are changed as in the graph that lends them.
    Raises `ExportError` when an exception of `precision` names no linear layer of this graph, and `UnsupportedModel`
    for a model that cannot be traced, or whose config gives figures that mean nothing.
    """
    graph = trace(source, model)
    passes.simplify(graph)
    edits = Edits(lent=lent)
    pointwise.to_linear(graph, partial(linear_layers.convolves, precision), edits)
    refused = _transform(graph, precision.transforms, kept, edits)
    dialect = dialects.get_dialect(precision.dialect)
    step_inputs = dialect.lower(graph, source)
    formats = linear_layers.formats(graph, precision)
    if unknown := sorted(set(precision.exceptions) - set(formats)):
        raise ExportError(f"no such linear layer in the {name}: {unknown[0]}: see `edgevlm inspect` for the names")
    rows = linear_layers.rows(graph)
    jobs = linear_layers.lower(graph, formats, precision.dialect)
    dialect.fuse(graph)
    made = {output for job in jobs.values() for output in job.outputs}
    for initializer in graph.graph.initializers.values():
        if initializer.const_value is None and initializer.name is not None and initializer.name not in made:
            shape = tuple(initializer.shape.numpy())  # type: ignore[union-attr]
            jobs[initializer.name] = as_stored(initializer.name, shape, torch.float32)
    made_from = CONVERSIONS[precision.activations](graph, tuple(jobs.values()))
    passes.finish(graph)
    _check_constants(name, graph)
    exceptions = {weight: fmt for weight, fmt in formats.items() if fmt != precision.default}
    calibrated = linear_layers.calibrated(formats, precision.dialect) if precision.calibrated else {}
    return GraphPlan(
        name,
        graph,
        made_from,
        precision.default,
        exceptions,
        tuple(key for key in precision.transforms if key not in refused),
        refused,
        edits,
        formats,
        rows,
        calibrated,
        source,
        precision.activations,
        step_inputs,
    )


def _transform(graph: ir.Model, names: Sequence[str], kept: AbstractSet[str], edits: Edits) -> dict[str, str]:
    """Apply transforms; those that do not fit the graph, with the reason."""
    refused: dict[str, str] = {}
    for name in names:
        try:
            get_transform(name)(graph, kept, edits)
        except NotApplicable as error:
            refused[name] = str(error)
    return refused


def _check_constants(name: str, graph: ir.Model) -> None:
    """Raise `UnsupportedModel` for a table (rotations, positions) that a config's figures make no numbers of."""
    for value in graph.graph.initializers.values():
        constant = None if value.const_value is None else value.const_value.numpy()
        if constant is not None and constant.dtype.kind == "f" and np.isnan(constant).any():
            raise UnsupportedModel(f"the config's figures make a table of the {name} no numbers: {value.name}")


def check_weights(plan: GraphPlan, weights: WeightSource) -> None:
    """Every weight of the plan is in the checkpoint. Raises `CheckpointError`, naming the first that is not."""
    for job in plan.jobs:
        if job.source not in weights:
            raise CheckpointError(f"weight missing from the checkpoint: {job.source}: {weights.folder}")


def nbytes(value: ir.Value) -> int:
    """Size of an initializer on disk."""
    assert value.shape is not None
    assert value.dtype is not None
    count = 1
    for dim in value.shape.numpy():
        count *= dim
    return -(-count * value.dtype.bitwidth // 8)
