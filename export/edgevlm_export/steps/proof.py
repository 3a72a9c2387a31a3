"""What the finished bundle says of itself: its self-test, its certificate, its manifest."""

from __future__ import annotations

from dataclasses import replace

from edgevlm_export.proof import certificate, selftest
from edgevlm_export.steps.state import State
from edgevlm_export.writing import bundle
from edgevlm_runtime.bundle.certificate import MISSED
from edgevlm_runtime.errors import ComparisonFailed, ParityMissed


def self_test(state: State) -> State:
    """Store what the bundle answers here, where that is wanted. Raises `ExportError` for what is no number."""
    if not state.options.self_test:
        return state
    return replace(state, written=selftest.record(state.folder, state.manifest, state.progress))


def certify(state: State) -> State:
    """Compare the bundle with the PyTorch model, where that is wanted. What fails is said by `finish`."""
    if not state.options.certificate:
        return state
    asked = state.material.questions(held_back=True) if state.manifest.image.fewer is not None else ()
    manifest, measured = certificate.attach(
        state.folder,
        state.manifest,
        state.plan.weights,
        state.options.allow_drift,
        state.progress,
        asked,
    )
    return replace(state, written=manifest, measured=measured)


def finish(state: State) -> State:
    """The manifest, last of all files. Raises `ParityMissed` and `ComparisonFailed`, the bundle kept aside first."""
    bundle.write_manifest(state.folder, state.manifest)
    measured = state.measured
    if measured is not None and measured.failure is not None:
        raise ComparisonFailed(state.place.keep_aside("unchecked"), measured.failure)
    if measured is not None and measured.certificate.verdict == MISSED:
        raise ParityMissed(state.place.keep_aside("drifted"), [str(miss) for miss in measured.certificate.missed])
    return state
