"""`edgevlm export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgevlm.terminal.errors import CHECK_FAILED, error_line
from edgevlm.terminal.output import emit_json, human_bytes, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Name, Number, Whole

if TYPE_CHECKING:
    from edgevlm_export.api import ExportReport
    from edgevlm_runtime.errors import ParityMissed


PRECISIONS = {
    "fp32": "Weights in float32: the reference, and the default.",
    "fp16": "Weights in float16: half the size.",
    "int8": "Weights and activations in int8: a quarter of the size.",
    "int4": "Decoder weights in int4, the rest in int8: smaller still, and less exact.",
    "int8-fast": "As --int8 --prefill widened: tokens sooner, in more memory.",
    "int4-fast": "Every layer of the decoder in int4, prompts widened: fastest, smallest on disk, least exact.",
}
"""Flag to help text; the names are those of `edgevlm_export.precision.plans.PLANS`."""


@dataclass(frozen=True, slots=True)
class MissedReport:
    """With exit code 1: the bundle is too far from the PyTorch model."""

    bundle: str
    """Where it is kept: DIR.drifted."""
    certificate: str
    """"missed"."""
    missed: tuple[str, ...]
    """What does not hold, one sentence each."""


F = TypeVar("F", bound=Callable[..., Any])


def precision_flags(function: F) -> F:
    """Decorator: one flag per precision; those given arrive together as `precision`."""
    for name, text in reversed(PRECISIONS.items()):
        function = click.option(f"--{name}", "precision", flag_value=name, type=str, multiple=True, help=text)(function)
    return function


def _one(given: tuple[str, ...]) -> str:
    """The precision asked for. Raises `UsageError` for two that differ."""
    names = list(dict.fromkeys(given)) or ["fp32"]
    if len(names) > 1:
        raise click.UsageError(f"--{names[0]} and --{names[1]} exclude each other.")
    return names[0]


def _layers(given: tuple[str, ...]) -> dict[str, str]:
    """Name or pattern to precision. Raises `UsageError` for what is no pair, and for a name given twice."""
    layers: dict[str, str] = {}
    for text in given:
        name, equals, precision = (part.strip() for part in text.partition("="))
        if not (name and equals and precision):
            raise click.UsageError(f"--layer {text}: write NAME=PRECISION, as in *.mlp.down_proj=int8b")
        if layers.setdefault(name, precision) != precision:
            raise click.UsageError(f"--layer {name}: {layers[name]} and {precision} exclude each other.")
    return layers


@click.command("export", short_help="Turn a checkpoint into a bundle.")
@click.argument("model", type=Name())
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    metavar="DIR",
    help="The folder to make [default: MODEL-PRECISION].",
)
@precision_flags
@click.option(
    "--vision", type=Name(), metavar="P", help="Precision of the vision encoder, where it differs: a name from above."
)
@click.option("--projector", type=Name(), metavar="P", help="Precision of the projector, where it differs.")
@click.option("--decoder", type=Name(), metavar="P", help="Precision of the decoder, where it differs.")
@click.option(
    "--prefill",
    type=Name(),
    metavar="P",
    help="A second decoder graph, for prompts: widened (made of the decoder's weights, in int8, when it is loaded), or "
    "its precision: int8.",
)
@click.option(
    "--kv", type=Name(), metavar="P", help="Precision of the KV cache: fp32 (the default), int8 or int8:channel."
)
@click.option(
    "--image-size",
    type=Whole(1),
    metavar="N",
    help="Have the vision encoder take pictures of N x N pixels, where the checkpoint's have another size.",
)
@click.option(
    "--image-tokens",
    type=Whole(1),
    metavar="N",
    help="Have the decoder read N tokens of each image, or of each tile, and not all. The certificate says how many "
    "answers that changes, on the pictures of --calibrate or on those that ship along.",
)
@click.option(
    "--image-token-method",
    type=Name(),
    metavar="NAME",
    help="How they are chosen: diverse (the default), attention, or random, to compare with.",
)
@click.option("--system-prompt", metavar="TEXT", help="System prompt of every question, unless it brings its own.")
@click.option(
    "--chat-template",
    type=Name(),
    metavar="FILE|NAME",
    help="How a conversation is written, in place of the checkpoint's own chat template: a Jinja file, or a name that "
    "`edgevlm models` lists.",
)
@click.option(
    "--bake-prefix/--no-bake-prefix", default=True, help="Store what the decoder makes of the beginning of all prompts."
)
@click.option(
    "--calibrate",
    type=FilePath(),
    metavar="DIR",
    help="Folder of what the model will see: images, with questions as `edgevlm eval` reads them, or texts, or both; "
    "for integers. Default: the inspection images and a text that ship along.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME=P",
    help='Precision of single layers, by name or pattern: "*.mlp.down_proj=int8b". May repeat; the first match counts.',
)
@click.option(
    "--max-kl",
    type=Number(0, or_infinite=True),
    metavar="X",
    help="Lift the worst decoder layers to finer precisions until the next token's KL divergence from PyTorch's is X "
    "or less, on average [default: 0.02 for --int8 and --int8-fast, none for others; inf: none].",
)
@click.option("--max-context", type=Whole(1), metavar="N", help="Tokens of prompt and answer together.")
@click.option(
    "--target",
    default="onnx",
    show_default=True,
    metavar="T",
    help="What will run the bundle: onnx (ONNX Runtime), tensorrt or tensorrt-rtx (standard operators, for engines).",
)
@click.option(
    "--self-test/--no-self-test", default=True, help="Store a question with its answer, to check a device by."
)
@click.option("--certificate/--no-certificate", default=True, help="Compare the bundle with the PyTorch model.")
@click.option(
    "--allow-drift", type=Name(), metavar="REASON", help="Take the bundle even if it is too far from the PyTorch model."
)
@click.option("--force", is_flag=True, help="Replace an existing bundle at the output folder.")
@json_option
def command(
    model: str,
    output: Path | None,
    precision: tuple[str, ...],
    vision: str | None,
    projector: str | None,
    decoder: str | None,
    prefill: str | None,
    kv: str | None,
    image_size: int | None,
    image_tokens: int | None,
    image_token_method: str | None,
    system_prompt: str | None,
    chat_template: str | None,
    bake_prefix: bool,
    calibrate: Path | None,
    layers: tuple[str, ...],
    max_kl: float | None,
    max_context: int | None,
    target: str,
    self_test: bool,
    certificate: bool,
    allow_drift: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export MODEL to a bundle: one folder with everything a device needs.

    MODEL is an alias (`edgevlm models` lists them), a local checkpoint folder, or a Hugging Face id. Weights are
    streamed: memory stays at a few tensors, whatever the model's size. The folder appears when it is complete; an
    interrupted export leaves nothing that loads.

    The bundle is then compared with the PyTorch model, where that fits into memory, and carries the figures as its
    certificate. One that is too far off is kept aside as DIR.drifted, and the exit code is 1, unless --allow-drift says
    why it is wanted. One that PyTorch fails to be compared with is kept aside as DIR.unchecked, with exit code 2.

    \b
    Examples:
      edgevlm export inspector --int8
      edgevlm export llava --fp16 -o llava-fp16
      edgevlm export ./my-finetuned-llava -o part-checker --vision fp32 --decoder fp16
      edgevlm export inspector --fp16 --target tensorrt-rtx
      edgevlm export HuggingFaceTB/SmolVLM2-256M-Video-Instruct --max-context 2048 --json
    """
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_export.api import ExportOptions, export
    from edgevlm_runtime.errors import ParityMissed

    options = ExportOptions(
        model=model,
        output=output,
        precision=_one(precision),
        vision=vision,
        projector=projector,
        decoder=decoder,
        prefill=prefill,
        kv=kv,
        image_size=image_size,
        image_tokens=image_tokens,
        image_token_method=image_token_method,
        system_prompt=system_prompt,
        chat_template=chat_template,
        bake_prefix=bake_prefix,
        force=force,
        max_context=max_context,
        calibrate=calibrate,
        layers=_layers(layers),
        max_kl=max_kl,
        target=target,
        self_test=self_test,
        certificate=certificate,
        allow_drift=allow_drift,
    )
    try:
        with stdout_kept_clean(), StageProgress() as progress:
            report = export(options, progress=progress)
    except ParityMissed as missed:
        _say_missed(missed, as_json)
        click.get_current_context().exit(CHECK_FAILED)
    if as_json:
        emit_json(report)
    else:
        click.echo(_summary(report))
        note(f'Next: edgevlm run {report.bundle} --image FILE --prompt "..."')


def _say_missed(missed: ParityMissed, as_json: bool) -> None:
    if as_json:
        emit_json(MissedReport(str(missed.aside), "missed", missed.missed))
    note(error_line(missed))


def _fidelity(report: ExportReport) -> list[str]:
    """What quantization costs, and which layers were lifted for it."""
    found = report.fidelity
    if found is None:
        return []
    lines = [f"KL divergence of the next token: {found.found:.4f}, at most {found.most:g}"]
    if found.lifted:
        added = human_bytes(sum(one.added_bytes for one in found.lifted))
        lines[0] += f": {len(found.lifted)} layers lifted for it, {added} more ({found.before:.4f} without)"
        lines.append(table([("lifted", "from", "to"), *((one.layer, one.before, one.after) for one in found.lifted)]))
    return lines


def _image_tokens(report: ExportReport) -> list[str]:
    """What leaving out image tokens costs."""
    found = report.image_tokens
    if found is None:
        return []
    share, of_random = f"{100 * found.changed:.1f} %", f"{100 * found.random_changed:.1f} %"
    kept = f"{found.kept} of {found.of} image tokens ({found.method})"
    return [f"{kept}: {share} of {found.questions} answers changed, {of_random} with as many at random"]


def _summary(report: ExportReport) -> str:
    rows = [("graph", "precision", "bytes", "nodes")]
    rows += [(name, g.precision, human_bytes(g.bytes), str(g.nodes)) for name, g in report.graphs.items()]
    return "\n".join(
        [
            f"{report.bundle}: {report.family}, {human_bytes(report.bytes_total)}",
            table(rows),
            *_fidelity(report),
            *_image_tokens(report),
            f"compared with PyTorch: {report.certificate or 'no'}",
            f"{report.seconds:.1f} s, peak memory {report.peak_rss_mib:.0f} MiB",
        ]
    )
