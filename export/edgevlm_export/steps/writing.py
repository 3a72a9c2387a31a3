"""The bundle's files: written once, and again with layers lifted until the plan's target holds."""

from __future__ import annotations

from dataclasses import replace

from edgevlm_export.calibration.target import Target
from edgevlm_export.planning.plan import ExportPlan
from edgevlm_export.precision.kv_cache import quantize_cache
from edgevlm_export.steps.state import State
from edgevlm_export.writing import bundle, output
from edgevlm_runtime.bundle.manifest import Manifest


def write(state: State) -> State:
    """Every file but the prompts' beginning, the self-test and the certificate."""
    return replace(state, written=_write(state, state.plan))


def lift(state: State) -> State:
    """Measure what quantizing the decoder costs, where there is a target, and lift layers until it holds."""
    plan = state.plan
    if plan.precision.max_kl is None:
        return state

    def write_anew(lifted: ExportPlan) -> Manifest:
        if state.scales:
            quantize_cache(lifted.graphs["decoder"].model, str(plan.precision.kv.scales), dict(state.scales))
        output.clear(state.folder)
        return _write(state, lifted)

    target = Target(plan.precision.max_kl, state.material, state.spool, state.scratch, state.folder, state.progress)
    return replace(state, written=target.hold(plan, state.manifest, write_anew))


def _write(state: State, plan: ExportPlan) -> Manifest:
    return bundle.write_bundle(plan, state.folder, state.options.name, state.spool, state.progress)
