"""Graphs to disk: weights are read, converted and appended one tensor at a time.

A `GraphPlan` is a graph whose every initializer is known by name, type and shape before any weight is read, so its size
on disk is known too. `write_graph` then streams the weights into `NAME.onnx.data`, which a device memory-maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir
import torch

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.graphs import dialects, linear_layers, passes
from edgevlm_export.graphs.edit import Rows
from edgevlm_export.graphs.source import GraphSource
from edgevlm_export.graphs.trace import trace
from edgevlm_export.graphs.transforms import get_transform
from edgevlm_export.graphs.transforms.edits import Edits
from edgevlm_export.precision.base import WeightJob, as_stored, converted
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.standard.activations import to_float16
from edgevlm_export.writing.spool import Spool
from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.errors import CheckpointError, ExportError

PAGE = 4096
"""Large tensors begin on a page, so that each can be memory-mapped."""
CONVERSIONS = {"float32": lambda graph, jobs: jobs, "float16": to_float16}
"""Type of the activations to what makes a lowered float32 graph have it."""
SMALL = 16 * 1024
"""Constants of the graph up to this many bytes stay in the graph file."""

Advance = Callable[[int], None]
"""Told how many bytes have been written."""


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
    edits: Edits
    held: Mapping[str, str]
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

    @property
    def weight_bytes(self) -> int:
        """Size of the data file, without alignment."""
        return sum(_nbytes(value) for value in self.model.graph.initializers.values())

    @property
    def largest_bytes(self) -> int:
        """The largest single initializer."""
        return max((_nbytes(value) for value in self.model.graph.initializers.values()), default=0)


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """Where a graph's initializers lie: name to offset in the data file."""

    plan: GraphPlan
    file: str
    data_file: str
    offsets: Mapping[str, int]
    nodes: int


def plan_graph(
    name: str,
    source: GraphSource,
    model: torch.nn.Module,
    precision: GraphPrecision,
    kept: AbstractSet[str] = frozenset(),
) -> GraphPlan:
    """Trace, simplify, transform and lower one graph, its layers held as `precision` says.

    No transform changes the weights named in `kept`.
    Raises `ExportError` when an exception of `precision` names no linear layer of this graph.
    """
    graph = trace(source, model)
    passes.simplify(graph)
    edits = Edits()
    transforms = tuple(key for key in precision.transforms if get_transform(key)(graph, kept, edits))
    dialect = dialects.get_dialect(precision.dialect)
    step_inputs = dialect.lower(graph, source)
    held = linear_layers.held(graph, precision)
    if unknown := sorted(set(precision.exceptions) - set(held)):
        raise ExportError(f"no such linear layer in the {name}: {unknown[0]}: see `edgevlm inspect` for the names")
    rows = linear_layers.rows(graph)
    jobs = linear_layers.lower(graph, held, precision.dialect)
    dialect.fuse(graph)
    made = {output for job in jobs.values() for output in job.outputs}
    for initializer in graph.graph.initializers.values():
        if initializer.const_value is None and initializer.name is not None and initializer.name not in made:
            shape = tuple(initializer.shape.numpy())  # type: ignore[union-attr]
            jobs[initializer.name] = as_stored(initializer.name, shape, torch.float32)
    made_from = CONVERSIONS[precision.activations](graph, tuple(jobs.values()))
    passes.finish(graph)
    exceptions = {weight: fmt for weight, fmt in held.items() if fmt != precision.default}
    calibrated = linear_layers.calibrated(held, precision.dialect) if precision.calibrated else {}
    return GraphPlan(
        name,
        graph,
        made_from,
        precision.default,
        exceptions,
        transforms,
        edits,
        held,
        rows,
        calibrated,
        source,
        precision.activations,
        step_inputs,
    )


def check_weights(plan: GraphPlan, weights: WeightSource) -> None:
    """Every weight of the plan is in the checkpoint. Raises `CheckpointError`, naming the first that is not."""
    for job in plan.jobs:
        if job.source not in weights:
            raise CheckpointError(f"weight missing from the checkpoint: {job.source}: {weights.folder}")


def write_graph(
    plan: GraphPlan, folder: Path, weights: WeightSource, advance: Advance, spool: Spool | None = None
) -> WrittenGraph:
    """Write `NAME.onnx` and `NAME.onnx.data`. Weights that calibration left in `spool` are taken from there."""
    data_file = f"{plan.name}.onnx.data"
    model = plan.model.clone()  # the plan's own keeps no trace of where weights lie, and can be written again
    initializers = model.graph.initializers
    offsets: dict[str, int] = {}
    with (folder / data_file).open("wb") as file:
        for value in initializers.values():
            if value.const_value is not None and _nbytes(value) > SMALL:
                tensor = torch.from_numpy(value.const_value.numpy())
                offsets[_name(value)] = _append(file, data_file, value, tensor, advance)
        for job in plan.jobs:
            made = spool.load(job.source) if spool is not None and job.source in plan.calibrated else None
            if made is None:
                made = job.make(plan.edits.read(weights, job.source))
            for name in job.outputs:
                offsets[name] = _append(file, data_file, initializers[name], made[name], advance)
    ir.save(model, folder / f"{plan.name}.onnx")
    return WrittenGraph(plan, f"{plan.name}.onnx", data_file, offsets, len(model.graph))


def append_tensor(file: BinaryIO, tensor: torch.Tensor, advance: Advance) -> int:
    """Append a tensor's bytes, large ones on a page boundary, and return where they begin."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    if data.nbytes >= PAGE and (padding := -file.tell() % PAGE):
        file.write(b"\0" * padding)
    offset = file.tell()
    file.write(data)
    advance(data.nbytes)
    return offset


def _append(file: BinaryIO, data_file: str, value: ir.Value, tensor: torch.Tensor, advance: Advance) -> int:
    assert value.shape is not None
    assert value.dtype is not None
    if tuple(tensor.shape) != _stored_shape(value):
        raise CheckpointError(
            f"weight has shape {list(tensor.shape)}, the config says {list(value.shape.numpy())}: {_name(value)}"
        )
    if value.dtype == ir.DataType.FLOAT16 and tensor.is_floating_point():
        tensor = converted(tensor, torch.float16, _name(value))
    offset = append_tensor(file, tensor, advance)
    value.const_value = ir.ExternalTensor(
        data_file, offset, _nbytes(value), value.dtype, shape=value.shape, name=_name(value)
    )
    return offset


def _stored_shape(value: ir.Value) -> tuple[int, ...]:
    """Of the tensor on disk: four-bit values lie two in a byte."""
    assert value.shape is not None
    assert value.dtype is not None
    *rows, columns = value.shape.numpy() or (1,)
    shape = (*rows, columns * value.dtype.bitwidth // 8) if value.dtype.bitwidth < 8 else tuple(value.shape.numpy())
    return tuple(int(dim) for dim in shape)


def _nbytes(value: ir.Value) -> int:
    assert value.shape is not None
    assert value.dtype is not None
    count = 1
    for dim in value.shape.numpy():
        count *= dim
    return -(-count * value.dtype.bitwidth // 8)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
