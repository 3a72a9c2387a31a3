"""What an export made and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgevlm_export.steps.state import State
from edgevlm_runtime.bundle.certificate import TokenFigures
from edgevlm_runtime.bundle.fidelity import Fidelity
from edgevlm_runtime.peak_memory import peak_rss_mib


@dataclass(frozen=True, slots=True)
class GraphReport:
    """One exported graph."""

    bytes: int
    """Size of the graph with its weights."""
    precision: str
    """How its weights are stored."""
    nodes: int
    """Operators in it."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made and what it took."""

    bundle: Path
    """The folder."""
    family: str
    """The model family, a `model_type`."""
    graphs: Mapping[str, GraphReport]
    """By name: `vision_encoder`, `projector`, `decoder`, and `prefill` where prompts have a graph of their own."""
    bytes_total: int
    """Size of all files but the manifest."""
    peak_rss_mib: float
    """The most memory that the process had, in MiB."""
    seconds: float
    """How long it took."""
    certificate: str | None
    """What the comparison with PyTorch said: "passed", "drift allowed", "not checked"; None where none was wanted."""
    fidelity: Fidelity | None
    """What quantizing the decoder costs, and the layers lifted for it; None where there is no target."""
    image_tokens: TokenFigures | None
    """What leaving out image tokens costs; None where none are left out, or that was not measured."""
    notes: tuple[str, ...]
    """What whoever uses the bundle should know; said while it was planned, and in its manifest."""
    steps: Mapping[str, float]
    """Seconds that each step of the export took, by its name, in their order (`edgevlm_export.api.STEPS`)."""


def report(state: State, seconds: float) -> ExportReport:
    """Of an export that went through all its steps in `seconds`."""
    manifest = state.manifest
    return ExportReport(
        bundle=state.options.folder,
        family=manifest.model.family,
        graphs={name: GraphReport(one.bytes, one.precision, one.nodes) for name, one in manifest.graphs.items()},
        bytes_total=sum(record.bytes for record in manifest.files.values()),
        peak_rss_mib=peak_rss_mib(),
        seconds=seconds,
        certificate=None if state.measured is None else state.measured.certificate.verdict,
        fidelity=manifest.fidelity,
        image_tokens=None if state.measured is None else state.measured.certificate.image_tokens,
        notes=manifest.notes,
        steps=state.seconds,
    )
