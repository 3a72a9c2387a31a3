"""Export a checkpoint as a bundle: the one call behind `edgevlm export`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from edgevlm_export.planning.plan import Progress
from edgevlm_export.reference.memory import give_back_large_blocks
from edgevlm_export.steps import calibration, estimate, lift, planning, prefix, proof
from edgevlm_export.steps.options import ExportOptions
from edgevlm_export.steps.report import ExportReport, GraphReport, report
from edgevlm_export.steps.state import State, Step, run
from edgevlm_export.writing import output

__all__ = ["PLANNING", "STEPS", "WRITING", "ExportOptions", "ExportReport", "GraphReport", "export"]

PLANNING = (
    Step("locate", planning.locate),  # the checkpoint's folder, a caller's own samples
    Step("plan", planning.plan),  # family, graphs, formats, preprocessing; no weight is read
    Step("estimate", estimate.room),  # disk and memory of this machine
)
"""Before anything is written."""
WRITING = (
    Step("calibrate", calibration.weights),  # GPTQ, into the scratch folder
    Step("prefix", prefix.compute),  # keys and values of what every prompt begins with
    Step("cache", calibration.cache),  # scales of an int8 KV cache
    Step("write", lift.write),  # graphs, weights, tokenizer
    Step("lift", lift.lift),  # worst layers to finer formats, until --max-kl holds
    Step("attach", prefix.attach),  # the computed prefix, as a file
    Step("self-test", proof.self_test),  # what the bundle answers here
    Step("certify", proof.certify),  # how far that is from PyTorch
    Step("finish", proof.finish),  # the manifest; a bundle that is too far off is kept aside
)
"""In a folder that takes the output's place when all of them are done."""
STEPS = (*PLANNING, *WRITING)


def _no_progress(stage: str, done: int, total: int) -> None:
    """The default: silence."""


def export(options: ExportOptions, progress: Progress = _no_progress) -> ExportReport:
    """Write a bundle. Nothing is left behind on failure, and an existing bundle stays until the new one is complete.

    `progress` is told of stages named "STEP: STAGE" after `STEPS`.

    Raises `ExportError` (see `edgevlm_runtime.errors`) for a checkpoint that cannot be exported or a disk that cannot
    hold the bundle; and two that name where the finished bundle lies: `ParityMissed`, when it is too far from the
    PyTorch model, and `ComparisonFailed`, when that failed while it was compared.
    """
    start = time.monotonic()
    give_back_large_blocks()
    with output.reserve(options.folder, options.force) as place:
        place.check()
        state = run(PLANNING, State(options, place, progress))
        with place.filled() as folder, _scratch(folder) as scratch:
            state = run(WRITING, replace(state, scratch=Path(scratch)))
    return report(state, time.monotonic() - start)


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Beside `folder`, and cleared away with it where an export was killed (`output`)."""
    return tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-scratch-")
