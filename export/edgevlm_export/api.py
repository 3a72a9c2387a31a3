"""Export a checkpoint as a bundle: the one call behind `edgevlm export`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgevlm_export import bundle, certificate, checkpoint, estimate, output, selftest
from edgevlm_export.calibration.run import calibrate
from edgevlm_export.calibration.samples import folder_text
from edgevlm_export.calibration.spool import Spool
from edgevlm_export.plan import GRAPHS, Progress, plan_export
from edgevlm_export.precision.plans import PrecisionPlan, choose
from edgevlm_runtime.certificate import MISSED
from edgevlm_runtime.errors import ExportError, ParityMissed
from edgevlm_runtime.manifest import Manifest
from edgevlm_runtime.peak_memory import peak_rss_mib

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and how. Raises `ExportError` for values that mean nothing."""

    model: str
    """A folder, an alias, or a Hugging Face id."""
    output: Path | None = None
    """The bundle's folder; None makes one here, named after model and precision."""
    precision: str = "fp32"
    vision: str | None = None
    """Precision of the vision encoder, where it differs; likewise for projector and decoder."""
    projector: str | None = None
    decoder: str | None = None
    calibrate: Path | None = None
    """A folder of texts (UTF-8) to calibrate int4 with; None takes English that every Python has."""
    force: bool = False
    """Replace a bundle that is there already."""
    max_context: int | None = None
    """Longest sequence the bundle shall take; None takes what the checkpoint allows, up to 32,768 tokens."""
    self_test: bool = True
    """Run the new bundle once and store what it answered."""
    certificate: bool = True
    """Compare the new bundle with the PyTorch model, and store the figures."""
    allow_drift: str | None = None
    """Why a bundle that is too far from the PyTorch model is wanted all the same; None keeps it aside."""

    def __post_init__(self) -> None:
        choose(self.precision, self.vision, self.projector, self.decoder)
        if self.calibrate is not None:
            folder_text(self.calibrate)
            if not self.plan.calibrates:
                raise ExportError(
                    f"nothing to calibrate: {self.precision} rounds without samples: leave out --calibrate"
                )
        if self.max_context is not None and self.max_context < 16:
            raise ExportError(f"context too short: {self.max_context} tokens: at least 16 are needed")

    @property
    def plan(self) -> PrecisionPlan:
        """How each graph is held, overrides applied."""
        return choose(self.precision, self.vision, self.projector, self.decoder)

    @property
    def folder(self) -> Path:
        """Where the bundle goes."""
        if self.output is not None:
            return self.output
        return Path(f"{self.name.lower()}-{self.precision}")

    @property
    def name(self) -> str:
        """The model's name in the manifest."""
        folder = Path(self.model).expanduser()
        return folder.resolve().name if folder.is_dir() else self.model.split("/")[-1]


@dataclass(frozen=True, slots=True)
class GraphReport:
    """One exported graph."""

    bytes: int
    precision: str
    nodes: int


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made and what it took."""

    bundle: Path
    family: str
    graphs: Mapping[str, GraphReport]
    bytes_total: int
    peak_rss_mib: float
    seconds: float
    certificate: str | None
    """What the comparison with PyTorch said: "passed", "drift allowed", "not checked"; None where none was wanted."""


def _no_progress(stage: str, done: int, total: int) -> None:
    """The default: silence."""


def export(options: ExportOptions, progress: Progress = _no_progress) -> ExportReport:
    """Write a bundle. Nothing is left behind on failure, and an existing bundle stays until the new one is complete.

    Raises `ExportError` (see `edgevlm_runtime.errors`) for a checkpoint that cannot be exported or a disk that cannot
    hold the bundle, and `ParityMissed`, which names where the bundle lies, when it is too far from the PyTorch model.
    """
    start = time.monotonic()
    output.recover(options.folder)
    output.check_output(options.folder, options.force)
    folder = checkpoint.locate(options.model)
    plan = plan_export(folder, options.plan, options.max_context, progress)
    needs = estimate.estimate(list(plan.graphs.values()), plan.embedding_bytes)
    estimate.check(needs, output.existing_parent(options.folder))
    logger.info("needs %.2f GiB of disk and %.1f GiB of memory", needs.disk / 2**30, needs.memory / 2**30)
    with output.atomic_folder(options.folder, options.force) as partial:
        with tempfile.TemporaryDirectory(dir=partial.parent, prefix=f"{partial.name}-scratch-") as scratch:
            spool = Spool(Path(scratch))
            calibrate(plan, options.calibrate, spool, progress)
            manifest = bundle.write_bundle(plan, partial, options.name, spool, progress)
        if options.self_test:
            manifest = selftest.record(partial, manifest, progress)
        verdict = None
        if options.certificate:
            manifest, measured = certificate.attach(partial, manifest, folder, options.allow_drift, progress)
            verdict = measured.verdict
        bundle.write_manifest(partial, manifest)
        if verdict == MISSED:
            raise ParityMissed(output.keep_aside(partial, options.folder), measured.missed)
    return _report(options.folder, manifest, time.monotonic() - start, verdict)


def _report(folder: Path, manifest: Manifest, seconds: float, verdict: str | None) -> ExportReport:
    graphs = {
        name: GraphReport(manifest.graphs[name].bytes, manifest.graphs[name].precision, manifest.graphs[name].nodes)
        for name in GRAPHS
    }
    total = sum(record.bytes for record in manifest.files.values())
    return ExportReport(folder, manifest.model.family, graphs, total, peak_rss_mib(), seconds, verdict)
