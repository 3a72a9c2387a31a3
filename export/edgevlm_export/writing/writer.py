"""Graphs to disk: weights are read, converted and appended one tensor at a time.

`write_graph` streams the weights of a planned graph into `NAME.onnx.data`, which a device memory-maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir
import torch

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.finite import is_finite
from edgevlm_export.planning.graph_plan import GraphPlan, nbytes
from edgevlm_export.precision.base import converted
from edgevlm_export.streaming.spool import Spool
from edgevlm_runtime.bundle.manifest import MADE_WHEN_LOADED
from edgevlm_runtime.errors import CheckpointError

PAGE = 4096
"""Large tensors begin on a page, so that each can be memory-mapped."""
SMALL = 16 * 1024
"""Constants of the graph up to this many bytes stay in the graph file."""

Advance = Callable[[int], None]
"""Told how many bytes have been written."""


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """Where a graph's initializers lie: name to offset in the data file."""

    plan: GraphPlan
    file: str
    data_file: str
    offsets: Mapping[str, int]
    nodes: int
    lender: WrittenGraph | None = None
    """The graph whose weights it borrows."""


def write_graph(
    plan: GraphPlan,
    folder: Path,
    weights: WeightSource,
    advance: Advance,
    spool: Spool | None = None,
    lender: WrittenGraph | None = None,
) -> WrittenGraph:
    """Write `NAME.onnx` and `NAME.onnx.data`. Weights that calibration left in `spool` are taken from there, those
    that the plan borrows from `lender`."""
    data_file = f"{plan.name}.onnx.data"
    model = plan.model.clone()  # the plan's own keeps no trace of where weights lie, and can be written again
    initializers = model.graph.initializers
    offsets: dict[str, int] = {}
    with (folder / data_file).open("wb") as file:
        for value in initializers.values():
            if value.const_value is not None and nbytes(value) > SMALL:
                tensor = torch.from_numpy(value.const_value.numpy())
                offsets[_name(value)] = _append(file, data_file, value, tensor, advance)
        for job in plan.jobs:
            if job.source in plan.borrowed.widened:
                for name in job.outputs:
                    _place(initializers[name], MADE_WHEN_LOADED, 0)
                continue
            if lender is not None and plan.borrowed.shared.issuperset(job.outputs):
                for name in job.outputs:
                    _place(initializers[name], lender.data_file, lender.offsets[name])
                continue
            made = spool.load(job.source) if spool is not None and job.source in plan.calibrated else None
            if made is None:
                made = job.make(plan.edits.read(weights, job.source))
            check_made(job.source, made)
            for name in job.outputs:
                offsets[name] = _append(file, data_file, initializers[name], made[name], advance)
    ir.save(model, folder / f"{plan.name}.onnx")
    return WrittenGraph(plan, f"{plan.name}.onnx", data_file, offsets, len(model.graph), lender)


def check_made(source: str, made: Mapping[str, torch.Tensor]) -> None:
    """Raise `CheckpointError` for initializers, scales among them, that became infinite though the weight is not."""
    if not all(map(is_finite, made.values())):
        raise CheckpointError(f"weight does not fit this precision, its scales overflow: {source}: use --fp32")


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
    _place(value, data_file, offset)
    return offset


def _place(value: ir.Value, data_file: str, offset: int) -> None:
    """Say where an initializer lies."""
    assert value.shape is not None
    assert value.dtype is not None
    value.const_value = ir.ExternalTensor(
        data_file, offset, nbytes(value), value.dtype, shape=value.shape, name=_name(value)
    )


def _stored_shape(value: ir.Value) -> tuple[int, ...]:
    """Of the tensor on disk: four-bit values lie two in a byte."""
    assert value.shape is not None
    assert value.dtype is not None
    *rows, columns = value.shape.numpy() or (1,)
    shape = (*rows, columns * value.dtype.bitwidth // 8) if value.dtype.bitwidth < 8 else tuple(value.shape.numpy())
    return tuple(int(dim) for dim in shape)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
