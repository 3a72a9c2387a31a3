"""What samples decide: how calibrated weights are rounded, and the scales of a KV cache in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgevlm_export.calibration.kv_ranges import calibrate_cache
from edgevlm_export.calibration.layerwise import Rounding
from edgevlm_export.planning.plan import ExportPlan, Progress
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.steps.state import State
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.sampler import Sampler
from edgevlm_export.streaming.samples import rows_at_most
from edgevlm_export.streaming.spool import Spool

IMAGES = 8
"""Images that the vision encoder and the projector are calibrated with, all at once."""


def weights(state: State) -> State:
    """Round the calibrated weights of every graph; they wait on disk. Raises `ExportError`."""
    calibrate(state.plan, state.material, state.spool, state.progress)
    return state


def cache(state: State) -> State:
    """Let the decoder keep its cache in int8, where the plan says so. Raises `ExportError`."""
    return replace(state, scales=calibrate_cache(state.plan, state.material, state.prefix.layers, state.progress))


def calibrate(plan: ExportPlan, material: Material, spool: Spool, progress: Progress) -> None:
    """Round the calibrated layers of every graph into `spool`. Raises `ExportError` for material it cannot use."""
    decoder = plan.graphs["decoder"].calibrated
    seeing = {**plan.graphs["vision_encoder"].calibrated, **plan.graphs["projector"].calibrated}
    if not decoder and not seeing:
        return
    sampler = Sampler(plan, material, progress)
    if seeing:
        sampler.encode(material.images(IMAGES), _rounding(seeing, spool, progress, "vision layers"))
    if decoder:
        samples = sampler.take(rows_at_most(plan.family.text_config))
        rounding = _rounding(decoder, spool, progress, "decoder layers")
        rounding.real = samples.real
        hidden = sampler.model.decode(samples, rounding)
        if sampler.model.head_name in decoder:
            sampler.model.observe_head(hidden, rounding)


def _rounding(formats: Mapping[str, Blockwise], spool: Spool, progress: Progress, stage: str) -> Rounding:
    return Rounding(formats, spool, lambda done, total: progress(stage, done, total))
