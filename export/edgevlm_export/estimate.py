"""What an export will need, before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgevlm_export.writer import GraphPlan
from edgevlm_runtime.errors import OutputError

OVERHEAD_BYTES = 900 * 2**20
"""torch, transformers and the traced graphs."""
COPIES = 4
"""Of the largest tensor, at its widest: as read, converted, quantized, and being written."""
MARGIN = 1.02
"""Alignment, tokenizer and manifest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes."""

    disk: int
    memory: int


def estimate(plans: Sequence[GraphPlan], embedding_bytes: int) -> Estimate:
    """Disk for the whole bundle, memory at the export's peak."""
    disk = sum(plan.weight_bytes for plan in plans) + embedding_bytes
    largest = max([plan.largest_bytes for plan in plans] + [embedding_bytes])
    return Estimate(int(disk * MARGIN) + 2**20, OVERHEAD_BYTES + COPIES * largest)


def check(needs: Estimate, folder: Path) -> None:
    """Refuse in one line when the disk or the memory cannot hold the export. Raises `OutputError`."""
    free = shutil.disk_usage(folder).free
    if free < needs.disk:
        raise OutputError(
            f"disk too small: {folder}: the bundle needs {needs.disk / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free: "
            "choose another --output"
        )
    memory = psutil.virtual_memory().available
    if memory < needs.memory - OVERHEAD_BYTES:
        raise OutputError(
            f"not enough memory: the export needs about {needs.memory / 2**30:.1f} GiB, "
            f"{memory / 2**30:.1f} GiB are available: close other programs"
        )
