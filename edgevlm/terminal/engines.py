"""What engines make of a bundle's graphs, as lines of a table: `edgevlm tune` and `edgevlm verify --engines`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevlm_runtime.checks.engines import Trial

HEADER = ("graph", "engine", "ms", "cosine", "max error", "self-test")


def lines(graph: str, trials: Sequence[Trial]) -> Iterator[tuple[str, ...]]:
    """A line for each engine; a dash for what was not measured."""
    for trial in trials:
        yield (
            graph,
            trial.engine,
            "-" if trial.ms is None else f"{trial.ms:.1f}",
            "-" if trial.cosine_min is None else f"{trial.cosine_min:.6f}",
            "-" if trial.max_abs is None else f"{trial.max_abs:.3g}",
            trial.problem or "passed",
        )
