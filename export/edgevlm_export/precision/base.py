"""A number format: everything that the exporter knows of one way of storing the weights of linear layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from edgevlm_export.graphs.edit import Rows, constant_before, declare_initializer, insert_before
from edgevlm_runtime.bundle.certificate import Thresholds
from edgevlm_runtime.errors import CheckpointError, ExportError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type and shape of an initializer."""

    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        count = 1
        for dim in self.shape:
            count *= dim
        return -(-count * self.dtype.bitwidth // 8)


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Where the rows of a [vocab, hidden] table lie among the initializers made from it, so that a table of token
    embeddings can be read from the very bytes that the LM head computes with."""

    dtype: str
    """A key of `edgevlm_runtime.decoding.embeddings.READERS`."""
    rows: str
    """The initializer that holds the rows; the other two where the format has them."""
    scales: str | None = None
    zero_points: str | None = None
    block: int = 0
    """Values that share a scale."""


@dataclass(frozen=True, slots=True)
class WeightJob:
    """One checkpoint tensor and the initializers made from it.

    `make` gets the tensor in the checkpoint's dtype and returns the initializers' values by name, in the dtype and
    shape that `outputs` declares.
    """

    source: str
    outputs: Mapping[str, TensorSpec]
    make: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    table: TableLayout | None = None
    """None where single rows cannot be read."""

    @property
    def nbytes(self) -> int:
        """Size of everything made, on disk."""
        return sum(spec.nbytes for spec in self.outputs.values())


Made = Mapping[str, torch.Tensor] | None
"""The initializers that calibration made of a weight, where it did."""


class Format(ABC):
    """One number format of one dialect. What a format leaves out is an error when it is made, never a default."""

    name: str
    """As on the command line, with its options."""
    table: str
    """The format of a table of token embeddings beside layers of this one."""
    finer: tuple[str, ...]
    """Formats that are more faithful, in order: what `--max-kl` may lift a layer to."""
    thresholds: Thresholds
    """What the certificate of a bundle in this format must reach."""

    def __init__(self, name: str, table: str, finer: tuple[str, ...], thresholds: Thresholds) -> None:
        self.name, self.table, self.finer, self.thresholds = name, table, finer, thresholds

    @property
    def calibrated(self) -> bool:
        """Whether samples say how its weights are rounded."""
        return False

    @property
    def convolves(self) -> bool:
        """Whether a graph in this format has it for convolutions over single places too (`graphs.pointwise`). Where
        not, these stay what they are: in float32, ONNX Runtime's convolution is faster than its product."""
        return False

    def configured(self, options: str) -> Format:
        """The same with options from text. Raises `ExportError` for options that it does not have."""
        raise ExportError(
            f"precision {self.name} takes no options: {self.name}:{options}: "
            "block-wise ones do, as int4:block=128,symmetric"
        )

    @abstractmethod
    def pack(self, weight: str, shape: tuple[int, int]) -> WeightJob:
        """How a weight [out, in] (or a table of embeddings [vocab, hidden]) is stored."""

    @abstractmethod
    def lower(self, model: ir.Model, node: ir.Node) -> WeightJob:
        """Replace one Linear(x, weight[, bias]) in place and return the job that makes its initializers."""

    @abstractmethod
    def simulate(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        made: Made = None,
        rows: Rows = Rows.ANY,
        together: int | None = None,
    ) -> torch.Tensor:
        """x W^T [rows, out] of `x` [rows, in] and `weight` [out, in] in float32, as the graph computes it; no bias.

        Activations are quantized as the operators do it, so that what the format costs can be measured layer by layer
        before a graph is written; differences of kernels (order of sums, instruction sets) are left out. `made`: the
        weight as calibration rounded it; `rows`: what the graph knows of the rows; `together`: how many it runs at
        once, which may share a scale (None: all of them).
        """


def as_stored(name: str, shape: tuple[int, ...], dtype: torch.dtype, table: str | None = None) -> WeightJob:
    """The tensor itself under its own name, converted to `dtype`. `table` is the runtime's name of the dtype."""
    spec = TensorSpec(ir.DataType.from_numpy(torch.empty(0, dtype=dtype).numpy().dtype), shape)
    layout = None if table is None else TableLayout(table, name)
    return WeightJob(name, {name: spec}, lambda tensor: {name: converted(tensor, dtype, name)}, layout)


def converted(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Raises `CheckpointError` for a value that is no number, or too large for the type (bfloat16 into float16)."""
    result = tensor.to(dtype)
    if not bool(torch.isfinite(result).all()):
        what = "does not fit into float16: use --fp32" if bool(torch.isfinite(tensor).all()) else "holds no number"
        raise CheckpointError(f"weight {what}: {name}")
    return result


def weight_of(node: ir.Node) -> ir.Value:
    """The weight [out, in] of a Linear node."""
    weight = node.inputs[1]
    assert weight is not None
    return weight


def matrix_shape(value: ir.Value) -> tuple[int, int]:
    """Its two dimensions."""
    assert value.shape is not None
    rows, columns = value.shape.numpy()
    return int(rows), int(columns)


def declare_outputs(model: ir.Model, job: WeightJob) -> list[ir.Value]:
    """The job's initializers in the graph, in order; those of a weight that another layer shares are there already."""
    known = model.graph.initializers
    return [
        known[name] if name in known else declare_initializer(model, name, spec.dtype, spec.shape)
        for name, spec in job.outputs.items()
    ]


def row_scale(node: ir.Node, x: ir.Value | None, smallest: np.float32) -> ir.Value:
    """max|x| of each row, [..., 1], at least `smallest`, before `node`. Layers with the same input share it once the
    graph is finished."""
    magnitude = insert_before(node, "Abs", [x], {})
    axis = constant_before(node, np.array([-1], np.int64))
    largest = insert_before(node, "ReduceMax", [magnitude, axis], {"keepdims": 1})
    return insert_before(node, "Max", [largest, constant_before(node, np.array(smallest))], {})


def drop_unused(model: ir.Model, weight: ir.Value) -> None:
    """Forget a float weight that no node reads any more."""
    assert weight.name is not None
    if not weight.uses():
        model.graph.initializers.pop(weight.name, None)
