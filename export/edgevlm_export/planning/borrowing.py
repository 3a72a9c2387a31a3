"""A decoder graph for prompts without weights of its own: it reads the decoder's, and what the decoder has in blocks is
widened to 8 bits when the graph is loaded.

A product in blocks takes 1.4 to 3 times as long on a prompt as `int8`'s, and one token is computed fastest in blocks:
so both graphs have their own format, and the bundle the weights of one. Blocks need no mixing of the channels that a
layer reads, so the decoder spares it; `int8` gains by it, and there the weights are mixed when they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgevlm_export.families.base import Family
from edgevlm_export.planning.graph_plan import Borrowed, GraphPlan, plan_graph
from edgevlm_export.precision.base import TableLayout, WeightJob
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.plans import MIX_PRODUCT
from edgevlm_runtime.bundle.blocks import BITS
from edgevlm_runtime.bundle.manifest import VALUES
from edgevlm_runtime.errors import ExportError


def plan_prefill(family: Family, decoder: GraphPlan, wanted: GraphPrecision, kept: frozenset[str]) -> GraphPlan:
    """The graph for prompts beside this decoder, which mixes no channels; `wanted` says what is done to it, as far as
    that is done to the decoder. Raises as `plan_graph` does."""
    jobs = {job.source: job for job in decoder.jobs}
    own = {weight: name for weight, name in decoder.formats.items() if not _in_blocks(jobs[weight])}
    transforms = tuple(key for key in wanted.transforms if key in (*decoder.transforms, MIX_PRODUCT))
    precision = replace(wanted, patterns=own, transforms=transforms)
    planned = plan_graph("prefill", family.graph("prefill"), family.model, precision, kept, frozenset(own))
    if refused := [why for key, why in planned.refused.items() if key != MIX_PRODUCT]:
        raise ExportError(
            f"prompts cannot be widened: {'; '.join(refused)}: choose --int8 or --int4, without --prefill"
        )
    shared, widened = set(), {}
    for job in planned.jobs:
        known = jobs.get(job.source)
        if known is not None and known.outputs == job.outputs:
            shared |= set(job.outputs)
        elif known is not None and job.source in planned.formats and (table := _in_blocks(known)):
            widened[job.source] = table
    borrowed = Borrowed(frozenset(shared), widened, dict(planned.edits.mixed))
    return replace(planned, refused={}, borrowed=borrowed)  # what mixes nothing is no less faithful


def _in_blocks(job: WeightJob) -> TableLayout | None:
    """Where the blocks lie that a weight is stored in; None in other formats."""
    return job.table if job.table is not None and job.table.dtype in BITS else None


def check_cache(graphs: Mapping[str, GraphPlan]) -> None:
    """Raise `ExportError` where the graph for prompts leaves other values in the cache than the decoder reads."""
    rotated = {name: VALUES in graphs[name].transforms for name in ("decoder", "prefill")}
    if rotated["decoder"] != rotated["prefill"]:
        why = {**graphs["decoder"].refused, **graphs["prefill"].refused}.get(VALUES, "")
        raise ExportError(f"a prefill graph would not fit the decoder's KV cache: {why}: leave out --prefill")
