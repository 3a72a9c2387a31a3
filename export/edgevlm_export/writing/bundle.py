"""Writes a planned export as a bundle folder: graphs, embeddings, tokenizer; the manifest comes last of all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from edgevlm_export.checkpoints.fingerprint import fingerprint
from edgevlm_export.families.text_config import kv_shape, shared_layers
from edgevlm_export.planning.plan import ExportPlan, Progress
from edgevlm_export.precision import WeightJob
from edgevlm_export.precision.base import TableLayout
from edgevlm_export.streaming.spool import Spool
from edgevlm_export.writing.output import UNSEALED
from edgevlm_export.writing.writer import WrittenGraph, append_tensor, check_made, write_graph
from edgevlm_runtime.bundle.decoder_info import DecoderInfo, EmbeddingTable, KVLayout, TokenColumns
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.bundle.folder import file_sha256
from edgevlm_runtime.bundle.manifest import (
    MANIFEST_DIGEST_NAME,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileRecord,
    GraphInfo,
    Manifest,
    ModelInfo,
    TensorInfo,
    WidenedWeight,
    encode,
)
from edgevlm_runtime.errors import CheckpointError

EMBEDDINGS = "embeddings.data"
MIN_RUNTIME = "0.1.0"
"""Oldest runtime that reads what this module writes."""
PACKAGES = ("edgevlm-export", "torch", "transformers", "onnx", "onnx-ir", "tokenizers", "pillow")


def write_bundle(plan: ExportPlan, folder: Path, name: str, spool: Spool | None, progress: Progress) -> Manifest:
    """Write every file of the bundle but the manifest into `folder`, and return the manifest.

    `spool` holds what calibration has rounded.

    Without a manifest no runtime opens the folder, so a killed export leaves nothing that loads: `output.seal` is the
    export's last step.
    """
    total = sum(graph.weight_bytes for graph in plan.graphs.values()) + plan.embedding_bytes
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("weights", done, total)

    written: dict[str, WrittenGraph] = {}
    for key, graph in plan.graphs.items():  # the decoder comes before what borrows from it
        written[key] = write_graph(graph, folder, plan.weights, advance, spool, written.get("decoder"))
    table = _write_embeddings(plan, folder, written["decoder"], advance)
    columns = _write_token_tables(plan, folder, advance)
    for file, text in plan.preprocessing.files.items():
        (folder / file).write_text(text, encoding="utf-8")
    progress("digests", 0, 1)
    manifest = Manifest(
        schema_version=_schema(plan),
        min_runtime_version=MIN_RUNTIME,
        model=_model_info(plan, name),
        graphs={key: _graph_info(graph, folder, plan.profiles[key]) for key, graph in written.items()},
        decoder=_decoder_info(plan, table, columns),
        image=plan.preprocessing.image,
        prompt=plan.preprocessing.prompt,
        generation=plan.generation,
        files=file_records(folder),
        versions={package: version(package) for package in PACKAGES},
        target=plan.target,
        notes=plan.notes,
    )
    progress("digests", 1, 1)
    return manifest


def _schema(plan: ExportPlan) -> int:
    """The oldest schema that says all of it: bundles of which an older runtime makes the same keep it."""
    names = {port.name for port in plan.graphs["decoder"].source.inputs}
    family = plan.family
    later = (
        family.columns
        or kv_shape(family.text_config).differing
        or shared_layers(family.text_config)
        or family.stand_ins
        or family.states
        or family.attention != "causal"
        or ("position_ids" in names and not family.mrope)
    )
    if plan.precision.widened:
        return SCHEMA_VERSION
    return 3 if later else 2


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The manifest and its digest; the manifest under the name it has until the folder is sealed."""
    data = encode(manifest)
    (folder / MANIFEST_DIGEST_NAME).write_text(
        f"{hashlib.sha256(data).hexdigest()}  {MANIFEST_NAME}\n", encoding="ascii"
    )
    (folder / UNSEALED).write_bytes(data)


def file_records(folder: Path, below: str = ".") -> dict[str, FileRecord]:
    """sha256 and size of every file in the bundle's folder, or of one folder or file in it."""
    start = folder / below
    files = [start] if start.is_file() else sorted(path for path in start.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(file_sha256(path), path.stat().st_size) for path in files}


def _write_embeddings(plan: ExportPlan, folder: Path, decoder: WrittenGraph, advance: object) -> EmbeddingTable:
    """The table's place: in the decoder's weights when tied, else a file of its own."""
    config = plan.family.text_config
    shape = (int(config.vocab_size), int(config.hidden_size))
    scale = plan.family.embedding_scale
    tied = plan.tied_head
    if tied is not None:
        return _embedding_table(tied, decoder.data_file, decoder.offsets, shape, scale)
    return _write_table(plan, plan.embedding, folder / EMBEDDINGS, shape, scale, advance)


def _write_token_tables(plan: ExportPlan, folder: Path, advance: object) -> tuple[TokenColumns, ...]:
    """Each a file of its own, `NAME.data`."""
    jobs = plan.token_tables
    return tuple(
        TokenColumns(
            one.name,
            _write_table(plan, jobs[one.name], folder / f"{one.name}.data", one.shape, one.scale, advance),
        )
        for one in plan.family.token_tables
    )


def _write_table(
    plan: ExportPlan, job: WeightJob, place: Path, shape: tuple[int, int], scale: float, advance: object
) -> EmbeddingTable:
    """A table as a file of its own. Raises `CheckpointError` for one of another shape than the config says."""
    tensor = plan.weights.read(job.source)
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"weight has shape {list(tensor.shape)}, the config says {list(shape)}: {job.source}")
    with place.open("wb") as file:
        made = job.make(tensor)
        check_made(job.source, made)
        offsets = {key: append_tensor(file, values, advance) for key, values in made.items()}  # type: ignore[arg-type]
    return _embedding_table(job, place.name, offsets, shape, scale)


def _embedding_table(
    job: WeightJob, file: str, offsets: Mapping[str, int], shape: tuple[int, int], scale: float
) -> EmbeddingTable:
    assert job.table is not None
    return _table(job.table, file, offsets, shape, scale)


def _table(
    table: TableLayout, file: str, offsets: Mapping[str, int], shape: tuple[int, int], scale: float = 1.0
) -> EmbeddingTable:
    return EmbeddingTable(
        file=file,
        offset=offsets[table.rows],
        dtype=table.dtype,
        shape=shape,
        scale=scale,
        block=table.block,
        scales_offset=offsets[table.scales] if table.scales else None,
        zero_points_offset=offsets[table.zero_points] if table.zero_points else None,
    )


def _model_info(plan: ExportPlan, name: str) -> ModelInfo:
    architectures = plan.family.config.architectures or [type(plan.model).__name__]
    return ModelInfo(
        name=name,
        family=plan.family.model_type,
        architecture=architectures[0],
        parameters=sum(parameter.numel() for parameter in plan.model.parameters()),
        checkpoint=fingerprint(plan.folder),
    )


def _decoder_info(plan: ExportPlan, table: EmbeddingTable, columns: tuple[TokenColumns, ...]) -> DecoderInfo:
    config = plan.family.text_config
    kv = kv_shape(config)
    graph = plan.graphs["decoder"]
    return DecoderInfo(
        hidden_size=int(config.hidden_size),
        vocab_size=int(config.vocab_size),
        max_context=plan.family.context,
        positions=plan.family.positions,
        kv=KVLayout(
            kv.layers,
            kv.kv_heads,
            kv.head_dim,
            plan.precision.kv.dtype or graph.activations,
            plan.precision.kv.scales,
            kv.differing,
        ),
        embedding=table,
        step_inputs=graph.step_inputs,
        image_columns=plan.family.image_columns,
        attention=plan.family.attention,
        states=plan.family.states,
        token_columns=columns,
        stand_ins=plan.family.stand_ins,
    )


def _graph_info(graph: WrittenGraph, folder: Path, profiles: tuple[Profile, ...]) -> GraphInfo:
    model = graph.plan.model
    return GraphInfo(
        file=graph.file,
        inputs=_tensors(model.graph.inputs, {port.name: port.shape for port in graph.plan.source.inputs}),
        outputs=_tensors(model.graph.outputs, {}),
        precision=graph.plan.precision,
        nodes=graph.nodes,
        bytes=(folder / graph.file).stat().st_size + (folder / graph.data_file).stat().st_size,
        exceptions=dict(graph.plan.exceptions),
        transforms=graph.plan.transforms,
        refused=dict(graph.plan.refused),
        activations=graph.plan.activations,
        profiles=profiles,
        widened=_widened(graph),
    )


def _widened(graph: WrittenGraph) -> tuple[WidenedWeight, ...]:
    lender = graph.lender
    if lender is None:
        return ()
    made = []
    for source, layout in graph.plan.borrowed.widened.items():
        columns, rows = _sizes(graph.plan.model.graph.initializers[f"{source}.int8"])
        blocks = _table(layout, lender.data_file, lender.offsets, (rows, columns))
        made.append(WidenedWeight(source, blocks, graph.plan.borrowed.mixed.get(source, 0)))
    return tuple(made)


def _sizes(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None
    return tuple(int(size) for size in value.shape.numpy())


def _tensors(values: object, shapes: Mapping[str, tuple[int | str, ...]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=str(value.name),
            dtype=value.dtype.numpy().name,
            shape=_shape(value, shapes.get(str(value.name))),
        )
        for value in values  # type: ignore[attr-defined]
    )


def _shape(value: ir.Value, port: tuple[int | str, ...] | None) -> tuple[int | str, ...]:
    """Sizes that the graph fixes, and the port's names for the others where it is one."""
    assert value.shape is not None
    names = port or tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return tuple(dim if isinstance(dim, int) else name for dim, name in zip(value.shape, names, strict=True))
