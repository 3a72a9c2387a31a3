"""`edgevlm inspect`: what is in a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.output import emit_json, human_bytes, json_option, table
from edgevlm.terminal.types import FilePath

if TYPE_CHECKING:
    from edgevlm.cli.records import GraphReport, InspectReport, PrefixReport
    from edgevlm_runtime.bundle.certificate import Certificate
    from edgevlm_runtime.bundle.decoder_info import KVLayout
    from edgevlm_runtime.bundle.folder import Bundle
    from edgevlm_runtime.bundle.manifest import GraphInfo, ImageProcessing, Manifest, SelfTest

THOUSAND_TOKENS = 1024


@click.command("inspect", short_help="Show what is in a bundle.")
@click.argument("bundle", type=FilePath())
@click.option("--sizes-only", is_flag=True, help="Check that files are there with their sizes, and skip their digests.")
@json_option
def command(bundle: Path, sizes_only: bool, as_json: bool) -> None:
    """Show what is in BUNDLE: model, graphs, precision, memory it needs, preprocessing, versions, files.

    The files are checked first, as `edgevlm run` does: a bundle that is incomplete, altered or newer than this
    version is refused.

    \b
    Examples:
      edgevlm inspect llava-fp16
      edgevlm inspect llava-fp16 --sizes-only --json
    """
    from edgevlm_runtime.bundle.folder import Bundle

    opened = Bundle.open(bundle, verify="size" if sizes_only else "full")
    if as_json:
        emit_json(_report(opened))
    else:
        click.echo(_as_text(opened))


def kv_bytes(kv: KVLayout, tokens: int = THOUSAND_TOKENS) -> int:
    """Bytes of the KV cache for so many tokens: a key and a value in every layer."""
    import numpy as np

    values = sum(heads * dim for heads, dim in map(kv.size, range(kv.layers)))
    return 2 * values * np.dtype(kv.dtype).itemsize * tokens


def _report(bundle: Bundle) -> InspectReport:
    from edgevlm.cli.records import InspectReport, KVCacheReport

    manifest = bundle.manifest
    kv = manifest.decoder.kv
    return InspectReport(
        bundle=str(bundle.path),
        digest=bundle.digest,
        schema_version=manifest.schema_version,
        min_runtime_version=manifest.min_runtime_version,
        model=manifest.model,
        graphs={name: _graph(graph) for name, graph in manifest.graphs.items()},
        bytes_total=_total(manifest),
        target=manifest.target,
        max_context=manifest.decoder.max_context,
        kv_cache=KVCacheReport(**asdict(kv), bytes_per_1k_tokens=kv_bytes(kv)),
        system_prompt=manifest.prompt.system_prompt,
        prefix=_prefix(bundle),
        image=manifest.image,
        generation=manifest.generation,
        versions=manifest.versions,
        files=manifest.files,
        notes=manifest.notes,
        self_test=manifest.self_test,
        certificate=_certificate(bundle),
    )


def _prefix(bundle: Bundle) -> PrefixReport | None:
    from edgevlm.cli.records import PrefixReport

    prefix = bundle.manifest.decoder.prefix
    if prefix is None:
        return None
    size = bundle.manifest.files[prefix.file].bytes
    return PrefixReport(len(prefix.token_ids), prefix.token_ids, prefix.dtype, size)


def _beginning(bundle: Bundle) -> str:
    prefix = _prefix(bundle)
    return f"{prefix.tokens} tokens, computed at export, {human_bytes(prefix.bytes)}" if prefix else "nothing known"


def _graph(graph: GraphInfo) -> GraphReport:
    from edgevlm.cli.records import GraphReport

    return GraphReport(
        bytes=graph.bytes,
        widened_bytes=graph.widened_bytes,
        precision=graph.precision,
        nodes=graph.nodes,
        exceptions=graph.exceptions,
        transforms=graph.transforms,
        refused=graph.refused,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _total(manifest: Manifest) -> int:
    return sum(record.bytes for record in manifest.files.values())


def _as_text(bundle: Bundle) -> str:
    manifest = bundle.manifest
    decoder, kv = manifest.decoder, manifest.decoder.kv
    about = [
        ("model", manifest.model.name),
        ("family", f"{manifest.model.family} ({manifest.model.architecture})"),
        ("parameters", f"{manifest.model.parameters:,}"),
        ("license", manifest.model.license or "not stated"),
        ("size", human_bytes(_total(manifest))),
        ("made for", manifest.target),
        ("context", f"{decoder.max_context} tokens"),
        ("KV cache", f"{human_bytes(kv_bytes(kv))} for {THOUSAND_TOKENS} tokens, {kv.dtype}, {kv.layers} layers"),
        ("system prompt", manifest.prompt.system_prompt or "none"),
        ("prompts begin with", _beginning(bundle)),
        ("images", f"{manifest.image.kind}: {_options(manifest.image.options)}{_changed(manifest.image)}"),
        ("self-test", _self_test(manifest.self_test)),
        ("against PyTorch", _parity(_certificate(bundle))),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("needs", f"edgevlm-runtime {manifest.min_runtime_version}, schema {manifest.schema_version}"),
    ]
    graphs = [("graph", "precision", "size", "nodes")]
    graphs += [(n, g.precision, _size(g), str(g.nodes)) for n, g in manifest.graphs.items()]
    files = [(name, human_bytes(record.bytes), record.sha256[:16]) for name, record in sorted(manifest.files.items())]
    parts = [str(bundle.path), table(about), *_notes(manifest), "Graphs", table(graphs), *_exceptions(manifest)]
    return "\n".join([*parts, "Files", table(files)])


def _size(graph: GraphInfo) -> str:
    made = f" + {human_bytes(graph.widened_bytes)} when loaded" if graph.widened else ""
    return human_bytes(graph.bytes) + made


def _notes(manifest: Manifest) -> list[str]:
    return ["Notes of the export", table([(line,) for line in manifest.notes])] if manifest.notes else []


def _exceptions(manifest: Manifest) -> list[str]:
    rows = [(name, *item) for name, graph in manifest.graphs.items() for item in graph.exceptions.items()]
    return ["Layers stored otherwise", table(rows)] if rows else []


def _certificate(bundle: Bundle) -> Certificate | None:
    from edgevlm_runtime.bundle.certificate import read_certificate

    return read_certificate(bundle)


def _parity(certificate: Certificate | None) -> str:
    if certificate is None:
        return "no certificate"
    if certificate.decoder is None:
        return f"not checked: {certificate.not_checked}"
    figures = certificate.decoder
    same = sum(one.first_divergence is None for one in certificate.greedy)
    embeddings = min(one.embeddings_cosine for one in certificate.images.values())
    return (
        f"{certificate.verdict}: embeddings' cosine at least {embeddings:.6f}, likeliest token the same at "
        f"{100 * figures.top1_agreement:.1f} % of {figures.positions} positions, mean KL {figures.kl_mean:.2g}, "
        f"{same} of {len(certificate.greedy)} answers the same"
    )


def _self_test(test: SelfTest | None) -> str:
    return f'"{test.prompt}" about {test.image}, {len(test.token_ids)} tokens' if test else "none"


def _changed(image: ImageProcessing) -> str:
    """What of images is otherwise than the checkpoint has it."""
    size = "" if image.size is None else f"; of {image.size} pixels by request"
    fewer = image.fewer
    return size if fewer is None else f"{size}; {fewer.kept} of {fewer.of} tokens are kept ({fewer.method})"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
