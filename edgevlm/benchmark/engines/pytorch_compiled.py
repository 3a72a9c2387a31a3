"""The PyTorch model compiled by torch.compile (Inductor): vision tower, projector and language model.

The loop around them is that of `pytorch`. The first rounds compile, which takes minutes and a C++ compiler: they belong
into the warm-up.
"""

from __future__ import annotations

from edgevlm.benchmark.engines.base import Engine, Spec
from edgevlm.benchmark.engines.pytorch import DEFAULT_DTYPE, PyTorchEngine, imports
from edgevlm.benchmark.workload import Task

__all__ = ["imports", "load"]

PARTS = ("vision_tower", "vision_model", "multi_modal_projector", "connector", "language_model", "text_model")
"""Modules of a transformers vision-language model, by the names its families use."""


def load(spec: Spec, task: Task) -> Engine:
    """Load a checkpoint and mark its parts for compilation. Raises what `Reference.load` raises."""
    import torch

    from edgevlm_export.reference import Reference

    torch.set_num_threads(task.threads)
    reference = Reference.load(spec.source, spec.dtype or DEFAULT_DTYPE)
    for name in PARTS:
        part = getattr(reference.model.model, name, None)
        if part is not None:
            part.compile()  # in place; a second shape makes it compile with symbolic sizes
    return PyTorchEngine(reference)
