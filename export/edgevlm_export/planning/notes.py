"""What whoever exports a checkpoint should know: said once at export, and in the manifest for whoever uses the bundle.

One sentence for each thing that is not as the checkpoint, or the command, would have one think. Nothing here is an
error: a bundle that cannot be right is refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.checkpoints import json_files
from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.checkpoints.weights import quantized
from edgevlm_export.checkpoints.weights.files import CONFIG, weight_files
from edgevlm_export.families.text_config import longest, rotary_limit
from edgevlm_export.planning.graph_plan import GraphPlan
from edgevlm_runtime.errors import CheckpointError

SHOWN = 3
"""Words that are named; of further ones there is the number."""


def weight_notes(folder: Path, weights: WeightSource) -> Iterator[str]:
    """What of the checkpoint's files is not what it seems."""
    files = weight_files(folder)
    if files.note is not None:
        yield files.note
    method = quantized.stated_method(folder, json_files.read(folder / CONFIG))
    if method is not None:
        yield f"{CONFIG} says that the weights are quantized ({method}), and all are plain floats: exported as they are"
    for name in weights.apart:
        yield f"{CONFIG} ties {name} to the table of embeddings, and both are stored, with other values: it is not tied"


def word_notes(tokenizer: Any, config: PreTrainedConfig) -> Iterator[str]:
    """Words that the tokenizer makes of a prompt and the model has no embedding of."""
    rows = int(config.get_text_config().vocab_size)
    outside = sorted((id_, word) for word, id_ in tokenizer.get_vocab().items() if id_ >= rows)
    if outside:
        words = ", ".join(f"{word!r} ({id_})" for id_, word in outside[:SHOWN])
        more = f" and {len(outside) - SHOWN} more" if len(outside) > SHOWN else ""
        yield (
            f"words of the tokenizer lie outside the table of embeddings, which has {rows} rows: {words}{more}: a "
            "prompt with one of them is refused"
        )


def check_image_token(token: int, config: PreTrainedConfig, folder: Path) -> None:
    """Raise `CheckpointError` for an image token that has no row: transformers looks it up before it puts the image in
    its place."""
    rows = int(config.get_text_config().vocab_size)
    if not 0 <= token < rows:
        raise CheckpointError(
            f"the image token {token} lies outside the table of embeddings, which has {rows} rows: {folder / CONFIG}: "
            "resize the table (model.resize_token_embeddings) and save the model again"
        )


def context_notes(config: PreTrainedConfig, context: int, wanted: int | None) -> Iterator[str]:
    """A context that is shorter than the checkpoint has it, without anybody having asked for that."""
    whole, limit = int(config.max_position_embeddings), longest(config)
    if wanted is not None:
        return
    if limit < whole:
        yield (
            f"the context is {context} of the checkpoint's {whole} tokens: its rotary scaling "
            f"({rotary_limit(config)}) is another beyond {limit}, for the whole prompt"
        )
    elif context < limit:
        yield f"the context is {context} of the checkpoint's {limit} tokens: --max-context takes more"


def transform_notes(graphs: Mapping[str, GraphPlan]) -> Iterator[str]:
    """What the precision asks for and a graph does not get."""
    for name, graph in graphs.items():
        for transform, why in graph.refused.items():
            yield f"{name}: {transform} does not apply, so {graph.precision} is less faithful than it could be: {why}"
