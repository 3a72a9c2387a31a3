"""Safetensors files, tensor by tensor, without mapping them.

A mapped shard counts as resident memory page by page, up to its whole size, most of what an export of a large model may
use. So the library checks a file and we read the tensors: the format is a little-endian length, a JSON header of that
length with dtype, shape and offsets, and the bytes (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError

from edgevlm_export.checkpoints import door
from edgevlm_export.finite import is_finite
from edgevlm_runtime.errors import CheckpointError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types that hold a weight's value as it is; others need a scale from elsewhere."""
_LENGTH_BYTES = 8


def dtype_name(dtype: torch.dtype) -> str:
    """Its key in `DTYPES`; PyTorch's own name where it has none."""
    return NAMES.get(dtype, str(dtype).removeprefix("torch."))


class Weight(Protocol):
    """A tensor that is read when it is asked for: as it is stored, or made of stored ones (`conversion`)."""

    @property
    def path(self) -> Path:
        """The file that it is in, or begins in."""

    @property
    def name(self) -> str:
        """What the checkpoint calls it, or the tensors that it is made of."""

    @property
    def dtype(self) -> str:
        """See `StoredTensor`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without reading it."""

    @property
    def place(self) -> Hashable:
        """Two weights of one place and one shape are the same, whatever they are called."""

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own. Raises `CheckpointError`, also for a value that is not a finite number."""

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """[stop - start, ...]: a part of a tensor along its first dimension. Raises as `read` does."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies."""

    path: Path
    name: str
    dtype: str
    """A key of `DTYPES`, or a type that cannot be read here."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""
    nbytes: int
    strides: tuple[int, ...] | None = None
    """Of a tensor that lies in another order than row by row, which only PyTorch's own files have: in elements."""

    @property
    def place(self) -> Hashable:
        """See `Weight`."""
        return self.path, self.offset, self.strides

    @property
    def span(self) -> int:
        """Bytes from its first to behind its last."""
        if self.strides is None or not self.nbytes:
            return self.nbytes
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * DTYPES[self.dtype].itemsize if self.dtype in DTYPES else self.nbytes

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own. Raises `CheckpointError`, also for a value that is not a finite number."""
        if self.strides is not None:
            return self._read(self.offset, self.span).as_strided(self.shape, self.strides).contiguous()
        return self._read(self.offset, self.nbytes).reshape(self.shape)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """[stop - start, ...]: a part of a tensor along its first dimension. Raises as `read` does."""
        if self.strides is not None:
            return self.read()[start:stop]
        width = self.nbytes // self.shape[0]
        return self._read(self.offset + start * width, (stop - start) * width).reshape(stop - start, *self.shape[1:])

    def _read(self, offset: int, nbytes: int) -> torch.Tensor:
        if self.dtype not in DTYPES:
            raise CheckpointError(f"weight of a type that cannot be read: {self.path}: {self.name} is {self.dtype}")
        data = torch.empty(nbytes, dtype=torch.uint8)
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                count = file.readinto(data.numpy().data)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        if count != nbytes:
            raise CheckpointError(f"damaged weight shard: {self.path}: it became shorter while it was read")
        values = data.view(DTYPES[self.dtype])
        if not is_finite(values):
            raise CheckpointError(
                f"weight is not a finite number: {self.path}: {self.name} holds NaN, infinity, or more than float32 "
                "holds: the checkpoint is damaged or its training failed: export another one"
            )
        return values


def index(path: Path) -> list[StoredTensor]:
    """Every tensor of a shard. Raises `CheckpointError` for a file that is missing, truncated, or another format."""
    try:
        door.check_tensors(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"damaged weight shard: {path}: {error}: download the checkpoint again") from error
    header.pop("__metadata__", None)
    start = _LENGTH_BYTES + length
    return [
        StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
        for name, entry in header.items()
        for begin, end in [entry["data_offsets"]]
    ]
