"""`edgevlm bench`: how fast a bundle answers, and in how much memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Name, Number, Whole, image_options, loading_options

if TYPE_CHECKING:
    from edgevlm.benchmark.baseline import Change
    from edgevlm.benchmark.results import Results

BUSY = 0.1
"""Share of the cores' time that others may take before the first engine starts; above it, figures mislead."""


class Size(click.ParamType[tuple[int, int]]):
    """`336`, or `640x480` (width, height)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(value))
        if found is None:
            self.fail(f"{value!r} is not a size: give 336, or 640x480.", param, ctx)
        return int(found[1]), int(found[2] or found[1])


@click.command("bench", short_help="Measure latency, throughput and memory.")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=FilePath())
@click.option(
    "--reference", type=Name(), metavar="MODEL", help="Measure this model in PyTorch too: alias, folder or id."
)
@click.option("--reference-dtype", multiple=True, metavar="NAME", help="float32 (default), bfloat16, float16.")
@click.option("-i", "--image", type=FilePath(), metavar="FILE", help="Default: random pixels.")
@click.option("--image-size", type=Size(), metavar="N|WxH", help="Of random pixels. Default: the model's.")
@click.option("-p", "--prompt", metavar="TEXT", help="The first question. Default: one of --text-tokens.")
@click.option("--text-tokens", type=Whole(1), default=32, metavar="N", help="Prompt beside the image. Default: 32.")
@click.option("--new-tokens", type=Whole(2), default=32, metavar="N", help="Length of the answer. Default: 32.")
@click.option("--repeats", type=Whole(1), default=10, metavar="N", help="Rounds measured. Default: 10.")
@click.option("--warmup", type=Whole(), default=2, metavar="N", help="Rounds before these. Default: 2.")
@click.option("--minutes", type=Number(0), default=0.0, metavar="M", help="Then run each engine without pause so long.")
@click.option("--one-at-a-time", is_flag=True, help="One engine in memory at a time, for small machines.")
@loading_options()
@click.option("--save", "save_to", type=FilePath(dir_okay=False), metavar="FILE", help="Keep the results.")
@click.option(
    "--compare",
    "--baseline",
    "baseline",
    type=FilePath(),
    metavar="FILE",
    help="Compare with what --save kept.",
)
@click.option("--tolerance", type=Number(0), default=0.2, metavar="SHARE", help="How much worse may be. Default: 0.2.")
@click.option("--report", type=FilePath(dir_okay=False), metavar="FILE", help="Write an HTML page.")
@click.option("--force", is_flag=True, help="Replace files of --save and --report that are there already.")
@image_options
@json_option
def command(
    bundles: tuple[Path, ...],
    reference: str | None,
    reference_dtype: tuple[str, ...],
    minutes: float,
    one_at_a_time: bool,
    save_to: Path | None,
    baseline: Path | None,
    tolerance: float,
    report: Path | None,
    force: bool,
    as_json: bool,
    loading: dict[str, Any],
    **workload: Any,
) -> None:
    """Measure how fast each BUNDLE answers, stage by stage, and how much memory it takes.

    A round asks a first question about an image and a second one about the same image. Every engine runs in a process
    of its own, on as many --threads; their rounds take turns. With --reference (where the exporter is installed)
    PyTorch answers the same; --provider and --engine are for bundles.

    With --compare, exits with 1 when a bundle is worse than the saved results by more than --tolerance.
    docs/bench.md says what each figure is.

    \b
    Examples:
      edgevlm bench inspector-int8
      edgevlm bench inspector-int8 inspector-int4 --reference inspector --report report.html
      edgevlm bench inspector-int8 --image part.png --new-tokens 8 --minutes 10
      edgevlm bench inspector-int8 --save before.json
      edgevlm bench inspector-int8 --compare before.json --tolerance 0.1
    """
    from edgevlm.benchmark.baseline import changes, check_workload, dump, load
    from edgevlm.benchmark.report import page
    from edgevlm.benchmark.run import BenchOptions, bench
    from edgevlm.benchmark.workload import Workload
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_runtime.errors import EdgeVLMError
    from edgevlm_runtime.saving import check_distinct, check_file, keep

    if reference_dtype and reference is None:
        raise click.UsageError("--reference-dtype needs --reference.")
    saved = None if baseline is None else load(baseline)
    check_distinct(save_to, report)
    for file in filter(None, (save_to, report)):
        check_file(file, force)
    options = BenchOptions(
        bundles=bundles,
        reference=reference,
        reference_dtypes=reference_dtype or ("float32",),
        workload=Workload(**loading, **workload),
        minutes=minutes,
        one_at_a_time=one_at_a_time,
    )
    with stdout_kept_clean(), StageProgress() as progress:
        results = bench(
            options,
            progress,
            accept=lambda facts: check_workload(saved, facts, baseline) if saved and baseline else None,
        )
    found = [] if saved is None else changes(saved, results)
    files = {save_to: lambda: dump(results), report: lambda: page(results)}
    problems = keep({file: render for file, render in files.items() if file is not None})
    worse = [change for change in found if change.worse_by > tolerance]
    _show(results, found, worse, as_json)
    if problems:
        raise EdgeVLMError("; ".join(problems))
    click.get_current_context().exit(CHECK_FAILED if worse else 0)


def _show(results: Results, found: list[Change], worse: list[Change], as_json: bool) -> None:
    from edgevlm.benchmark.baseline import report
    from edgevlm.benchmark.report import rows

    if as_json:
        emit_json(report(results, found, worse))
    else:
        workload = results.workload
        click.echo(
            f"{workload.image_tokens} image + {workload.text_tokens} text tokens, {workload.new_tokens} new tokens, "
            f"{workload.threads} threads; milliseconds are median (95th percentile)"
        )
        click.echo(table(rows(results)))
        _show_ratios(results)
        _show_sustained(results)
    for change in worse:
        note(
            f"Worse: {change.engine}: {change.measure} was {change.before:.4g}, is {change.now:.4g} "
            f"({100 * change.worse_by:+.0f} %)"
        )
    _warn_when_busy(results)


def _show_ratios(results: Results) -> None:
    for label, ratios in (results.ratios.by_engine or {}).items():
        if label.startswith("PyTorch float32"):
            continue
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in ratios.items())
        click.echo(f"{label}, times better than PyTorch float32: {shown}")
    for label, ratios in (results.ratios.first_bundle or {}).items():
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in ratios.items())
        click.echo(f"{label}, times better than {results.engines[0].label}: {shown}")


def _show_sustained(results: Results) -> None:
    for engine in results.engines:
        if engine.sustained is not None:
            rates = ", ".join(f"{one.rounds_per_minute:.1f}" for one in engine.sustained.intervals)
            click.echo(
                f"{engine.label}, rounds per minute over {engine.sustained.minutes:g} min: {rates}; "
                f"end {100 * engine.sustained.last_over_first:.0f} % of the beginning"
            )


def _warn_when_busy(results: Results) -> None:
    busy = results.machine.busy_before
    if busy > BUSY:
        note(f"Other programs took {100 * busy:.0f} % of the processor before this began: measure on a quiet machine.")
