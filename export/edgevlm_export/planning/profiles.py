"""Sizes that engines built ahead of time are made for: one optimization profile per graph, two for the decoder."""

from __future__ import annotations

from edgevlm_export.graphs.source import GraphSource, Range
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.decoding.tuning import DEFAULT_CHUNK
from edgevlm_runtime.errors import UnsupportedModel

PREFILL_CHUNK = 1024
"""Prompt positions run at once, at most."""
PREFILL_ROWS = 64
"""Of them, those that get logits at most: one when answering, more when choices or a whole text are scored."""
BATCH: Range = (1, 1, 4)
"""Images, or tiles, that the vision encoder takes at once."""
KNOWN: dict[str, Range] = {"images": BATCH, "tiles": BATCH}


def profiles(graph: str, source: GraphSource) -> tuple[Profile, ...]:
    """The profiles of one graph, none where no dimension is dynamic.

    Raises `UnsupportedModel` for a dimension whose range nobody has named.
    """
    names = {dim for port in source.inputs for dim in port.shape if isinstance(dim, str)} - set(source.fixed)
    names -= {"block", "seen"} if source.masks else set()  # their dialect says it all in the attention mask
    if not names:
        return ()
    if names == {"sequence", "rows"}:
        chunk = min(source.ranges.get("sequence", (1, 1, PREFILL_CHUNK))[2], *source.fixed.values())
        rows = min(PREFILL_ROWS, chunk)
        return (
            Profile("prefill", {"sequence": (1, min(DEFAULT_CHUNK, chunk), chunk), "rows": (1, 1, rows)}),
            Profile("decode", {"sequence": (1, 1, 1), "rows": (1, 1, 1)}),
        )
    ranges = {**KNOWN, **source.ranges}
    if unknown := sorted(names - set(ranges)):
        raise UnsupportedModel(
            f"no range of sizes is known for dimension {unknown[0]!r} of the {graph}: use --target onnx"
        )
    return (Profile("default", {name: ranges[name] for name in sorted(names)}),)
