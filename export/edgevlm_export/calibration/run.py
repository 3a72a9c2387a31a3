"""Calibrates a planned export before its weights are written."""

from __future__ import annotations

from collections.abc import Mapping

from edgevlm_export.calibration.layerwise import Rounding
from edgevlm_export.planning.plan import ExportPlan, Progress
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.streaming.forward import streamed
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.samples import rows_at_most
from edgevlm_export.streaming.spool import Spool

IMAGES = 8
"""Images that the vision encoder and the projector are calibrated with, all at once."""


def calibrate(plan: ExportPlan, material: Material, spool: Spool, progress: Progress) -> None:
    """Round the calibrated layers of every graph into `spool`.

    Raises `ExportError` for material that cannot be used.
    """
    decoder = plan.graphs["decoder"].calibrated
    seeing = {**plan.graphs["vision_encoder"].calibrated, **plan.graphs["projector"].calibrated}
    if not decoder and not seeing:
        return
    model = StreamedModel.of(plan)
    if seeing:
        model.encode(material.images(IMAGES), _rounding(seeing, spool, progress, "calibrating vision"))
    if decoder:
        samples = model.sample(material, rows_at_most(plan.family.text_config), progress)
        rounding = _rounding(decoder, spool, progress, "calibrating")
        rounding.real = samples.real
        with streamed(model.model, model.load, rounding, changes=model.changes):
            causal = model.family.block_arguments(samples.embeddings)
            model.text_model(inputs_embeds=model.enter(samples.embeddings), use_cache=False, **causal)


def _rounding(formats: Mapping[str, Blockwise], spool: Spool, progress: Progress, stage: str) -> Rounding:
    return Rounding(formats, spool, lambda done, total: progress(stage, done, total))
