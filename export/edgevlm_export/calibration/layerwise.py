"""Calibrates layer by layer: each linear layer is rounded for the inputs that rounded layers before it give.

One forward pass over all samples; in memory are the hidden states, one weight and its inputs' Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgevlm_export.precision.blocks import dequantize
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.gptq import Curvature, gptq
from edgevlm_export.streaming.spool import Spool
from edgevlm_runtime.errors import ExportError

ROWS = 8192
"""Rows of inputs added to a Gram matrix at once."""


@dataclass
class Rounding:
    """What is done to each linear layer as the forward pass reaches it."""

    formats: Mapping[str, Blockwise]
    """Of the weights to round, by parameter name."""
    spool: Spool
    advance: Callable[[int, int], None]
    """Told how many weights are done, and of how many."""
    real: Tensor | None = None
    """bool [sequences, length]: the positions to round for; None for all."""
    done: int = 0
    _last: tuple[Tensor, Curvature] | None = field(default=None)

    def __call__(self, weight: str, module: nn.Linear, x: Tensor) -> None:
        """See `streamed.Observe`."""
        fmt = self.formats.get(weight)
        if fmt is None:
            return
        rows, columns = module.weight.shape
        options = fmt.options.fitted(columns)
        try:
            with _one_thread():
                blocks = gptq(module.weight, self._curvature(x), options)
        except ArithmeticError as error:
            raise ExportError(f"cannot calibrate {weight}: {error}: give it another format, with --layer") from error
        job = fmt.pack(weight, (rows, columns))
        self.spool.save(weight, dict(zip(job.outputs, fmt.stored(blocks), strict=True)))
        module.weight.data = dequantize(blocks, options, columns)
        self.done += 1
        self.advance(self.done, len(self.formats))

    def _curvature(self, x: Tensor) -> Curvature:
        """Of the layer's inputs; q, k and v (gate and up) read the same ones."""
        if self._last is None or self._last[0] is not x:
            masked = self.real is not None and x.shape[:-1] == self.real.shape
            rows = (x[self.real] if masked else x.flatten(0, -2)).float()
            gram = torch.zeros(rows.shape[1], rows.shape[1])
            for part in rows.split(ROWS):
                gram += part.t() @ part
            self._last = x, Curvature.of(gram)
        return self._last[1]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Column after column is too little work to share: on a busy machine threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
