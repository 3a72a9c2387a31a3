"""Export a checkpoint as a bundle: the one call behind `edgevlm export`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgevlm_export import chat_templates
from edgevlm_export.calibration.kv_ranges import calibrate_cache
from edgevlm_export.calibration.run import calibrate
from edgevlm_export.calibration.target import Target
from edgevlm_export.checkpoints import checkpoint
from edgevlm_export.checkpoints.hub import readable_name
from edgevlm_export.planning.plan import ExportPlan, Progress, plan_export
from edgevlm_export.planning.targets import get_target
from edgevlm_export.precision.kv_cache import quantize_cache
from edgevlm_export.precision.plan import PrecisionPlan
from edgevlm_export.precision.plans import choose
from edgevlm_export.proof import certificate, selftest
from edgevlm_export.reference.memory import give_back_large_blocks
from edgevlm_export.steps import estimate, prefix
from edgevlm_export.streaming.material import Material, read_folder
from edgevlm_export.streaming.spool import Spool
from edgevlm_export.writing import bundle, output
from edgevlm_runtime.bundle.certificate import MISSED
from edgevlm_runtime.bundle.fidelity import Fidelity
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.errors import ComparisonFailed, ExportError, ParityMissed
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
    prefill: str | None = None
    """Precision of a second decoder graph that computes prompts; None lets the decoder compute them itself."""
    kv: str | None = None
    """How the KV cache is held: "fp32" (None too), "int8" or "int8:channel" (`edgevlm_export.precision.kv_cache`)."""
    system_prompt: str | None = None
    """System message of the bundle's sessions and chats that are opened without one."""
    chat_template: str | None = None
    """A file, or a name of `edgevlm_export.chat_templates`, in place of the checkpoint's own template."""
    bake_prefix: bool = True
    """Put keys and values of what every prompt begins with into the bundle (`edgevlm_export.steps.prefix`)."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Layers held otherwise, in any graph: name, or shell pattern of names, to precision ({"*.down_proj": "int8b"})."""
    max_kl: float | None = None
    """What quantizing the decoder may cost: mean KL divergence of the next token from PyTorch's, in nats. The worst
    layers are lifted to finer precisions until that holds. None: the precision's own target; infinity: none."""
    calibrate: Path | None = None
    """A folder to calibrate with: images, with a questions file as `edgevlm eval` reads it, or texts (UTF-8), or both.
    What it lacks, and None, are made up for by the inspection images and by English that every Python has."""
    force: bool = False
    """Replace a bundle that is there already."""
    max_context: int | None = None
    """Longest sequence the bundle shall take; None takes what the checkpoint allows, up to 32,768 tokens."""
    self_test: bool = True
    """Run the new bundle once and store what it answered."""
    certificate: bool = True
    """Compare the new bundle with the PyTorch model, and store the figures."""
    target: str = "onnx"
    """What the graphs are for: "onnx" (ONNX Runtime), or standard operators for "tensorrt" or "tensorrt-rtx"."""
    allow_drift: str | None = None
    """Why a bundle that is too far from the PyTorch model is wanted all the same; None keeps it aside."""

    def __post_init__(self) -> None:
        _ = self.plan
        if self.system_prompt is not None and not self.system_prompt.strip():
            raise ExportError("empty system prompt: give it a text, or leave out --system-prompt")
        if self.chat_template is not None:
            chat_templates.resolve(self.chat_template)
        if self.allow_drift is not None and not self.allow_drift.strip():
            raise ExportError("no reason given: --allow-drift goes into the certificate: say why, or leave it out")
        if self.calibrate is not None:
            read_folder(self.calibrate)
            if not self.plan.calibrates:
                raise ExportError(
                    f"nothing to calibrate: {self.precision} rounds without samples: leave out --calibrate"
                )
        if self.max_context is not None and self.max_context < 16:
            raise ExportError(f"context too short: {self.max_context} tokens: at least 16 are needed")

    @property
    def plan(self) -> PrecisionPlan:
        """How each graph is held, overrides applied."""
        dialect = get_target(self.target).dialect
        plan = choose(self.precision, self.vision, self.projector, self.decoder, dialect, self.kv, self.prefill)
        return plan.with_layers(self.layers, dialect).held_to(self.max_kl)

    @property
    def folder(self) -> Path:
        """Where the bundle goes."""
        if self.output is not None:
            return self.output
        parts = [self.name.lower(), self.precision] + ([] if self.target == "onnx" else [self.target])
        return Path("-".join(parts))

    @property
    def name(self) -> str:
        """The model's name in the manifest."""
        folder = Path(self.model).expanduser()
        return readable_name(folder.resolve()) if folder.is_dir() else self.model.split("/")[-1]


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
    fidelity: Fidelity | None
    """What quantizing the decoder costs, and the layers lifted for it; None where there is no target."""
    notes: tuple[str, ...]
    """What whoever uses the bundle should know; said while it was planned, and in its manifest."""


def _no_progress(stage: str, done: int, total: int) -> None:
    """The default: silence."""


def export(options: ExportOptions, progress: Progress = _no_progress) -> ExportReport:
    """Write a bundle. Nothing is left behind on failure, and an existing bundle stays until the new one is complete.

    Raises `ExportError` (see `edgevlm_runtime.errors`) for a checkpoint that cannot be exported or a disk that cannot
    hold the bundle; and two that name where the finished bundle lies: `ParityMissed`, when it is too far from the
    PyTorch model, and `ComparisonFailed`, when that failed while it was compared.
    """
    start = time.monotonic()
    give_back_large_blocks()
    with output.reserve(options.folder, options.force) as place:
        place.check()
        manifest, verdict = _fill(options, place, progress)
    return _report(options.folder, manifest, time.monotonic() - start, verdict)


def _fill(options: ExportOptions, place: output.Place, progress: Progress) -> tuple[Manifest, str | None]:
    """Make the bundle; its manifest and what the comparison with PyTorch said."""
    material = Material() if options.calibrate is None else read_folder(options.calibrate)
    plan = _planned(options, material, progress)
    verdict = failure = None
    with place.filled() as partial:
        manifest = _write(options, plan, material, partial, progress)
        if options.self_test:
            manifest = selftest.record(partial, manifest, progress)
        if options.certificate:
            manifest, measured = certificate.attach(partial, manifest, plan.weights, options.allow_drift, progress)
            verdict, failure = measured.certificate.verdict, measured.failure
        bundle.write_manifest(partial, manifest)
        if failure is not None:
            raise ComparisonFailed(place.keep_aside("unchecked"), failure)
        if verdict == MISSED:
            raise ParityMissed(place.keep_aside("drifted"), [str(miss) for miss in measured.certificate.missed])
    return manifest, verdict


def _planned(options: ExportOptions, material: Material, progress: Progress) -> ExportPlan:
    """The export, planned, and room for it on this machine."""
    folder = checkpoint.locate(options.model)
    template = None if options.chat_template is None else chat_templates.resolve(options.chat_template)
    plan = plan_export(folder, options.plan, options.max_context, progress, options.target, template)
    plan = prefix.with_system_prompt(plan, options.system_prompt)
    needs = estimate.with_samples(estimate.estimate(list(plan.graphs.values()), plan.embedding_bytes), plan, material)
    if options.certificate:
        needs = estimate.with_comparison(needs, folder)
    estimate.check(needs, output.existing_parent(options.folder))
    logger.info(
        "needs %.2f GiB of disk and %.1f GiB of memory, %.1f GiB for the comparison with PyTorch",
        *(bytes_ / 2**30 for bytes_ in (needs.disk, needs.memory, needs.comparison)),
    )
    return plan


def _write(options: ExportOptions, plan: ExportPlan, material: Material, partial: Path, progress: Progress) -> Manifest:
    """Calibrate, and write everything but self-test and certificate."""
    beginning = prefix.prompt_prefix(plan)
    with tempfile.TemporaryDirectory(dir=partial.parent, prefix=f"{partial.name}-scratch-") as scratch:
        spool = Spool(Path(scratch))
        calibrate(plan, material, spool, progress)
        if options.bake_prefix:
            beginning = prefix.compute(plan, beginning, progress)
        scales = calibrate_cache(plan, material, beginning.layers, progress)

        def write(current: ExportPlan) -> Manifest:
            if current is not plan and scales:
                quantize_cache(current.graphs["decoder"].model, str(plan.precision.kv.scales), scales)
            output.clear(partial)
            return bundle.write_bundle(current, partial, options.name, spool, progress)

        if plan.precision.max_kl is None:
            manifest = write(plan)
        else:
            target = Target(plan.precision.max_kl, material, spool, Path(scratch), partial, progress)
            manifest = target.hold(plan, write)
    return prefix.attach(partial, manifest, beginning, scales) if options.bake_prefix else manifest


def _report(folder: Path, manifest: Manifest, seconds: float, verdict: str | None) -> ExportReport:
    graphs = {
        name: GraphReport(manifest.graphs[name].bytes, manifest.graphs[name].precision, manifest.graphs[name].nodes)
        for name in manifest.graphs
    }
    total = sum(record.bytes for record in manifest.files.values())
    return ExportReport(
        folder,
        manifest.model.family,
        graphs,
        total,
        peak_rss_mib(),
        seconds,
        verdict,
        manifest.fidelity,
        manifest.notes,
    )
