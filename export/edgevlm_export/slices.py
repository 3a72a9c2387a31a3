"""Large tensors a few rows at a time, so that what a computation holds in between stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

VALUES = 2**22
"""In a slice: 16 MiB in float32."""


def slices(rows: Tensor) -> Iterator[Tensor]:
    """`rows` [n, ...] in parts of about VALUES values, at least one row each; an empty tensor is one part."""
    count = max(1, VALUES // max(1, rows[0].numel())) if len(rows) else 1
    return iter(rows.split(count))


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), of a function that treats each row (the last axis) by itself, computed slice by slice."""
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor | None = None
    start = 0
    for part in slices(rows):
        made = function(part)
        if out is None:
            out = made.new_empty((len(rows), *made.shape[1:]))
        out[start : start + len(part)] = made
        start += len(part)
    assert out is not None
    return out.reshape(*x.shape[:-1], *out.shape[1:])
