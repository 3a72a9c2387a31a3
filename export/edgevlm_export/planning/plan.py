"""An export, planned: every graph traced and lowered, every byte of the bundle accounted for, no weight read yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.generation import read_generation
from edgevlm_export.checkpoints.weights.interpolated import views
from edgevlm_export.checkpoints.weights.ties import tied_weights
from edgevlm_export.families import get_family
from edgevlm_export.families.base import Family
from edgevlm_export.families.image_request import AS_THEY_ARE, ImageRequest
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.families.text_config import max_context, shared_layers
from edgevlm_export.planning import notes
from edgevlm_export.planning.borrowing import check_cache, plan_prefill
from edgevlm_export.planning.graph_plan import GraphPlan, check_weights, plan_graph
from edgevlm_export.planning.profiles import profiles
from edgevlm_export.planning.targets import get_target
from edgevlm_export.precision import WeightJob, get_format
from edgevlm_export.precision.plan import GraphPrecision, PrecisionPlan, matches
from edgevlm_export.preprocessing import CheckpointProcessor, Preprocessing, load_processor, translate
from edgevlm_export.preprocessing.fewer import at_size, changed
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.bundle.manifest import VALUES, GenerationDefaults
from edgevlm_runtime.errors import CheckpointError, EdgeVLMError, ExportError, reason

logger = logging.getLogger(__name__)

GRAPHS = ("vision_encoder", "projector", "decoder")

P = ParamSpec("P")
Progress = Callable[[str, int, int], None]
"""Told the stage's name, how much of it is done, and how much there is (steps, or bytes while writing)."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What will be written."""

    folder: Path
    model: PreTrainedModel
    family: Family
    processor: CheckpointProcessor
    preprocessing: Preprocessing
    generation: GenerationDefaults
    graphs: Mapping[str, GraphPlan]
    weights: checkpoint.WeightSource
    precision: PrecisionPlan
    target: str
    """Key of `edgevlm_export.planning.targets.TARGETS`."""
    profiles: Mapping[str, tuple[Profile, ...]]
    """Sizes that each graph's engine is to be built for; none for targets without."""
    notes: tuple[str, ...]
    """What whoever exports it should know (`edgevlm_export.planning.notes`), said already."""

    @property
    def tied_head(self) -> WeightJob | None:
        """The head that is the embedding table as well, or None (also where its format has no rows to read)."""
        names = table_names(self.family)
        jobs = (job for job in self.graphs["decoder"].jobs if job.table is not None)
        return next((job for job in jobs if job.source in names), None)

    @property
    def embedding(self) -> WeightJob:
        """The table of token embeddings, as a file of its own."""
        config = self.family.text_config
        shape = (int(config.vocab_size), int(config.hidden_size))
        return get_format(self.precision.embedding).pack(self.family.embedding_name, shape)

    @property
    def token_tables(self) -> dict[str, WeightJob]:
        """The family's further tables of tokens, each a file of its own, by the name of the decoder's input."""
        packing = get_format(self.precision.embedding)
        return {table.name: packing.pack(table.parameter, table.shape) for table in self.family.token_tables}

    @property
    def embedding_bytes(self) -> int:
        """Of the tables, where they are files of their own."""
        own = 0 if self.tied_head is not None else self.embedding.nbytes
        return own + sum(job.nbytes for job in self.token_tables.values())


def table_names(family: Family) -> frozenset[str]:
    """Every name that the table of token embeddings has among the model's parameters."""
    name = family.embedding_name
    ties = tied_weights(family.model)
    return frozenset({name, ties.get(name, name)} | {tied for tied, owner in ties.items() if owner == name})


def _check_patterns(precision: PrecisionPlan, graphs: Mapping[str, GraphPlan]) -> None:
    """Raise `ExportError` for a pattern that means no layer of any graph."""
    layers = [weight for graph in graphs.values() for weight in graph.formats]
    for pattern in dict.fromkeys(pattern for name in GRAPHS for pattern in precision.graph(name).patterns):
        if not any(matches(pattern, layer) for layer in layers):
            near = get_close_matches(pattern, [layer.removesuffix(".weight") for layer in layers], 1, 0.0)
            raise ExportError(f"no such linear layer: {pattern}: this model has {', '.join(near)} and others like it")


def _check_possible(precision: PrecisionPlan, family: Family) -> None:
    """Raise `ExportError` for what this family's decoder cannot have."""
    name = family.config.model_type
    if precision.kv.scales is not None and shared_layers(family.text_config):
        raise ExportError(
            f"KV cache in int8 not possible: layers of {name} read the keys and values of others, which "
            "ONNX Runtime's attention does in float alone: leave out --kv"
        )
    if precision.prefill is not None and family.attention == "prefix":
        raise ExportError(
            f"a prefill graph would never run: {name} computes a prompt in one run, its last token and "
            "logits included: leave out --prefill, and take --int8 or --int4 in place of the fast ones"
        )


def _traced(
    family: Family, precision: PrecisionPlan, weights: checkpoint.WeightSource, progress: Progress
) -> dict[str, GraphPlan]:
    """Every graph, by name. Raises `CheckpointError` for a weight that is not there, `ExportError` for a pattern of
    `precision` that means no layer."""
    graphs: dict[str, GraphPlan] = {}
    kept = table_names(family)
    names = GRAPHS if precision.prefill is None else (*GRAPHS, "prefill")
    for done, name in enumerate(names):
        progress("tracing", done, len(names))
        if name == "prefill" and precision.widened:
            graphs[name] = plan_prefill(family, graphs["decoder"], precision.graph(name), kept)
        else:
            graphs[name] = plan_graph(name, family.graph(name), family.model, _alike(precision, name, graphs), kept)
        check_weights(graphs[name], weights)
        if name == "prefill":
            check_cache(graphs)
    progress("tracing", len(names), len(names))
    _check_patterns(precision, graphs)
    return graphs


def _alike(precision: PrecisionPlan, name: str, graphs: Mapping[str, GraphPlan]) -> GraphPrecision:
    """How a graph is stored; values are rotated in the one for prompts only where the decoder's are, which may have
    refused that."""
    wanted = precision.graph(name)
    if name != "prefill" or VALUES in graphs["decoder"].transforms:
        return wanted
    return replace(wanted, transforms=tuple(key for key in wanted.transforms if key != VALUES))


def with_exceptions(plan: ExportPlan, layers: Mapping[str, str]) -> ExportPlan:
    """The same with single layers of the decoder stored otherwise: weight to format."""
    planned = plan.precision.decoder
    precision = replace(plan.precision, decoder=replace(planned, exceptions={**planned.exceptions, **layers}))
    family, kept = plan.family, table_names(plan.family)
    graphs = {**plan.graphs, "decoder": plan_graph("decoder", family.decoder(), plan.model, precision.decoder, kept)}
    if precision.widened:
        graphs["prefill"] = plan_prefill(family, graphs["decoder"], precision.graph("prefill"), kept)
        check_cache(graphs)
    return replace(plan, precision=precision, graphs=graphs)


def _translated(processor: CheckpointProcessor, config: PreTrainedConfig) -> Preprocessing:
    """`translate`, where a value of the wrong type or size in either file is one clear line."""
    try:
        return translate(processor, config)
    except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError) as error:
        raise CheckpointError(
            f"processor and model config do not fit together: {processor.folder}: {reason(error)}"
        ) from error


def _explained(plan: Callable[P, ExportPlan]) -> Callable[P, ExportPlan]:
    """A decorator: configs that no check of ours foresaw end in one line too, whatever the model's own code raised."""

    @wraps(plan)
    def planned(*args: P.args, **options: P.kwargs) -> ExportPlan:
        try:
            return plan(*args, **options)
        except (EdgeVLMError, MemoryError, ImportError):
            raise
        except Exception as error:
            logger.debug("planning failed", exc_info=True)
            raise CheckpointError(
                f"the checkpoint's config files do not fit together: {args[0]}: {type(error).__name__}: "
                f"{reason(error)}: take them from the original checkpoint (EDGEVLM_DEBUG=1 shows the traceback)"
            ) from error

    return planned


@_explained
def plan_export(
    folder: Path,
    precision: PrecisionPlan,
    context: int | None,
    progress: Progress,
    target: str = "onnx",
    chat_template: str | None = None,
    images: ImageRequest = AS_THEY_ARE,
) -> ExportPlan:
    """Read configs and headers, trace every graph, check that the checkpoint has every weight. `chat_template`: a text
    that stands in for the checkpoint's own; `images`: what is to be done otherwise with images.

    Raises `CheckpointError`, `UnsupportedModel`, and `ExportError` for a `precision` that does not fit the model.
    """
    progress("reading the checkpoint", 0, 1)
    stored = checkpoint.load_config(folder)
    family_type = get_family(stored.model_type)
    processor, config = at_size(load_processor(folder, stored, chat_template), stored, images)
    preprocessing = _translated(processor, config)
    image = changed(preprocessing.image, config, images)
    model = skeleton.build(config)
    weights = checkpoint.open_weights(folder, model, views(model, stored, images.size))
    notes.check_image_token(preprocessing.prompt.image_token_id, config, folder)
    generation = read_generation(folder, config, processor.tokenizer, processor.turn_end)
    text = config.get_text_config()
    family = family_type(
        model,
        Normalization.of(processor.image_processor),
        preprocessing.image.options,
        max_context(text, context, get_target(target).context),
    )
    family.fewer = image.fewer
    _check_possible(precision, family)
    progress("reading the checkpoint", 1, 1)
    graphs = _traced(family, precision, weights, progress)
    built = get_target(target).profiles
    ranges = {name: profiles(name, graph.source) if built else () for name, graph in graphs.items()}
    told = (
        *notes.weight_notes(folder, weights),
        *notes.word_notes(processor.tokenizer, config),
        *notes.context_notes(text, family.context, context),
        *generation.notes,
        *notes.transform_notes(graphs),
    )
    for line in told:
        logger.warning("%s", line)
    return ExportPlan(
        folder,
        model,
        family,
        processor,
        replace(preprocessing, image=image),
        generation.defaults,
        graphs,
        weights,
        precision,
        target,
        ranges,
        told,
    )
