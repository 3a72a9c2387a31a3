"""Calibrates a planned export before its weights are written."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from edgevlm_export import checkpoint, skeleton
from edgevlm_export.calibration.layerwise import Rounding, round_layers
from edgevlm_export.calibration.samples import folder_text, manual, sample
from edgevlm_export.calibration.spool import Spool
from edgevlm_export.families import get_family
from edgevlm_export.plan import ExportPlan, Progress


def calibrate(plan: ExportPlan, text: Path | None, spool: Spool, progress: Progress) -> None:
    """Round the decoder's calibrated layers into `spool`. `text`: a folder of sample texts; None takes Python's manual.

    Raises `ExportError` for a folder that cannot be used.
    """
    graph = plan.graphs["decoder"]
    if not graph.calibrated:
        return
    tokenizer = Tokenizer.from_str(plan.preprocessing.files["tokenizer.json"])
    ids = tokenizer.encode(manual() if text is None else folder_text(text), add_special_tokens=False).ids
    tokens = sample(ids, plan.family.context)
    table = plan.weights.read(plan.family.embedding_name)
    embeddings = table[tokens.clamp(max=len(table) - 1)].float() * plan.family.embedding_scale
    del table
    if graph.edits.entry is not None:
        embeddings = graph.edits.entry(embeddings)
    # a skeleton of its own: the plan's was changed to be traced
    model = skeleton.build(checkpoint.load_config(plan.folder))
    family = get_family(model.config.model_type)(
        model, plan.family.normalization, plan.family.image_options, plan.family.context
    )
    rounding = Rounding(graph.calibrated, spool, lambda done, total: progress("calibrating", done, total))
    round_layers(model, family.text_model, lambda name: graph.edits.read(plan.weights, name), embeddings, rounding)
