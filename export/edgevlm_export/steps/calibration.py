"""What samples decide: how calibrated weights are rounded, and the scales of a KV cache in int8."""

from __future__ import annotations

from dataclasses import replace

from edgevlm_export.calibration.kv_ranges import calibrate_cache
from edgevlm_export.calibration.run import calibrate
from edgevlm_export.steps.state import State


def weights(state: State) -> State:
    """Round the calibrated weights of every graph; they wait on disk. Raises `ExportError`."""
    calibrate(state.plan, state.material, state.spool, state.progress)
    return state


def cache(state: State) -> State:
    """Let the decoder keep its cache in int8, where the plan says so. Raises `ExportError`."""
    scales = calibrate_cache(state.plan, state.material, state.prefix.layers, state.progress)
    return replace(state, scales=scales)
