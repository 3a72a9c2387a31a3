"""How the cores of a machine are shared: how many processes, and how many threads each has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from edgevlm_runtime.engines.assigned.words import on_processor
from edgevlm_runtime.engines.cores import physical_cores, usable_cores

BASE_BYTES = 250 << 20
"""Of a process that asks, beside its weights: Python, ONNX Runtime, pictures, a KV cache of a small model."""
COPIES = 2
"""Weights in memory at most, as multiples of their files: as they are stored, and arranged for the kernels."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Processes, and threads of a graph run in each."""

    processes: int
    threads: int


def shares(workers: int | None, loading: dict[str, Any], bundle_bytes: int) -> Shares:
    """What was asked for; else one process for each core, with one thread (docs/scale.md has the figures), as far as
    the memory that is free now holds them. On a GPU, one process."""
    threads: int | None = loading.get("threads")
    cores = physical_cores()
    if workers is None:
        here = loading.get("provider", "cpu") == "cpu" and on_processor(loading.get("engine"))
        fitting = psutil.virtual_memory().available // (BASE_BYTES + COPIES * bundle_bytes)
        workers = max(1, min(cores // (threads or 1), fitting)) if here else 1
    return Shares(workers, min(threads or max(1, cores // workers), usable_cores()))
