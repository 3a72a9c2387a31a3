"""What an export will need, before it starts."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from edgevlm_export.calibration.loss import CHUNK
from edgevlm_export.planning.graph_plan import GraphPlan
from edgevlm_export.planning.plan import ExportPlan
from edgevlm_export.reference.memory import streamed_bytes
from edgevlm_export.steps.state import State
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.sampler import Sampler
from edgevlm_export.streaming.samples import MEASURED, rows_at_most
from edgevlm_export.writing.output import existing_parent
from edgevlm_runtime.errors import OutputError

logger = logging.getLogger(__name__)

OVERHEAD_BYTES = 900 * 2**20
"""torch, transformers and the traced graphs."""
COPIES = 4
"""Of the largest tensor, at its widest: as read, converted, quantized, and being written."""
FLOAT_BYTES = 4
GRAMS = 4
"""Gram matrix, its inverse and factors, at once."""
ACTIVATIONS = 6
"""Of the widest layers, at once: gate, up, their product and the input, and half as much again for padded prompts."""
SPOOLED = 0.75
"""Bytes a weight of four bits with its scales and zero points, blocks of 32 or more."""
MARGIN = 1.02
"""Alignment, tokenizer and manifest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes."""

    disk: int
    memory: int
    comparison: int = 0
    """Memory of the comparison with PyTorch where it runs layer by layer, which it does when more is not there."""


def room(state: State) -> State:
    """Refuse what this machine has no room for, before the work begins. Raises `OutputError`."""
    plan = state.plan
    needs = with_samples(estimate(list(plan.graphs.values()), plan.embedding_bytes), plan, state.material)
    if state.options.certificate:
        made = sum(graph.widened_bytes for graph in plan.graphs.values())
        needs = with_comparison(needs, state.checkpoint, made)
    check(needs, existing_parent(state.options.folder))
    logger.info(
        "needs %.2f GiB of disk and %.1f GiB of memory, %.1f GiB for the comparison with PyTorch",
        *(bytes_ / 2**30 for bytes_ in (needs.disk, needs.memory, needs.comparison)),
    )
    return state


def estimate(plans: Sequence[GraphPlan], embedding_bytes: int) -> Estimate:
    """Disk for the whole bundle, memory at the export's peak."""
    disk = sum(plan.weight_bytes for plan in plans) + embedding_bytes
    largest = max([plan.largest_bytes for plan in plans] + [embedding_bytes])
    return Estimate(int(disk * MARGIN) + 2**20, OVERHEAD_BYTES + COPIES * largest)


def with_samples(needs: Estimate, plan: ExportPlan, material: Material) -> Estimate:
    """The same with what calibration and measuring take, where the plan has them.

    Calibrated weights wait on disk. In memory are a linear layer in float32 with its activations, and for GPTQ the
    Gram matrix of the widest input with its factors. Measuring keeps logits of the reference on disk, the hidden states
    between all layers and one layer's gradients in memory. Raises `ExportError` for material that cannot be used.
    """
    if not (plan.precision.measures or any(graph.calibrated for graph in plan.graphs.values())):
        return needs
    config = plan.family.text_config
    vocab, hidden, layers = int(config.vocab_size), int(config.hidden_size), int(config.num_hidden_layers)
    elements = {
        weight: math.prod(plan.weights.tensors[weight].shape)
        for graph in plan.graphs.values()
        for weight in graph.formats
    }
    columns = [plan.weights.tensors[weight].shape[1] for graph in plan.graphs.values() for weight in graph.calibrated]
    grams = GRAMS * max(columns, default=0) ** 2 * FLOAT_BYTES
    activations = ACTIVATIONS * rows_at_most(config) * max(int(config.intermediate_size), hidden) * FLOAT_BYTES
    disk = sum(elements[weight] for graph in plan.graphs.values() for weight in graph.calibrated) * SPOOLED
    memory = activations + grams + max(elements.values(), default=0) * COPIES * FLOAT_BYTES
    if plan.precision.max_kl is not None:
        decoder = sum(elements[weight] for weight in plan.graphs["decoder"].formats) - vocab * hidden
        sampler = Sampler(plan, material)
        layouts = [sampler.layout(MEASURED, held_back) for held_back in (False, True)]
        positions = max(layout.positions for layout in layouts)
        states = positions * hidden * layers + max(decoder, 0) // layers + vocab * hidden
        measured = activations * max(positions, rows_at_most(config)) // rows_at_most(config)
        memory = max(memory, measured + states * FLOAT_BYTES + 3 * CHUNK * vocab * FLOAT_BYTES)
        disk += layouts[1].text_positions(sampler.image_token_id) * vocab * FLOAT_BYTES
    return replace(needs, disk=needs.disk + int(disk), memory=max(needs.memory, OVERHEAD_BYTES + memory))


def with_comparison(needs: Estimate, checkpoint: Path, made: int) -> Estimate:
    """The same with the comparison: the bundle runs first, with `made` bytes of weights beside its own, then the
    checkpoint. Raises `CheckpointError`."""
    return replace(needs, comparison=OVERHEAD_BYTES + max(2 * (needs.disk + made), streamed_bytes(checkpoint)))


def check(needs: Estimate, folder: Path) -> None:
    """Refuse in one line when the disk or the memory cannot hold the export. Raises `OutputError`.

    Memory that only the comparison with PyTorch lacks is a warning: the certificate will say that nothing was checked.
    """
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
    if memory < needs.comparison - OVERHEAD_BYTES:
        logger.warning(
            "not enough memory to compare the bundle with PyTorch: about %.1f GiB are needed, %.1f GiB are available",
            needs.comparison / 2**30,
            memory / 2**30,
        )
