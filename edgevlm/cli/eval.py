"""`edgevlm eval`: how often a bundle answers right, and how often otherwise than the PyTorch model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.json_text import json_text, plain
from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Name, Number, Whole, image_options, loading_options

if TYPE_CHECKING:
    from edgevlm.evaluation.datasets import Dataset
    from edgevlm.evaluation.run import Evaluation


_PAGE = b"<title>edgevlm eval: "
"""In every page of an evaluation."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """With `--write DIR` and no bundle."""

    n: int
    """Number of cases."""
    written: str
    """The folder they were written to."""


@click.command("eval", short_help="Measure how often a bundle answers right.")
@click.argument("bundle", type=FilePath(), required=False)
@click.option(
    "--dataset",
    "dataset_name",
    type=Name(),
    required=True,
    metavar="NAME|PATH",
    help="inspection, a folder, or records.",
)
@click.option(
    "--reference", type=Name(), metavar="MODEL", help="Compare with this model in PyTorch: alias, folder or id."
)
@click.option("-n", "--n", type=Whole(1), metavar="N", help="Questions. Default: 500 drawn ones, or the whole folder.")
@click.option("--split", metavar="NAME", help="Part of the data set. Default: test, or the whole folder.")
@click.option(
    "--per-image", type=Whole(1), default=1, metavar="N", help="Questions drawn about each image. Default: 1."
)
@click.option("--match", "matcher", default="exact", metavar="HOW", help="exact (default), or loose: case ignored.")
@click.option("--max-new-tokens", type=Whole(1), metavar="N", help="End each answer after N tokens.")
@loading_options()
@click.option("--report", type=FilePath(dir_okay=False), metavar="FILE", help="Write an HTML page.")
@click.option("--out", type=FilePath(dir_okay=False), metavar="FILE", help="Write every case as JSON.")
@click.option("--resume", is_flag=True, help="Go on with an evaluation that was interrupted.")
@click.option("--fit-calibration", is_flag=True, help="Fit the temperature of choices; kept beside the bundle.")
@click.option("--write", type=FilePath(file_okay=False), metavar="DIR", help="Save the data set.")
@click.option("--force", is_flag=True, help="Replace what --report, --out and --write would write over.")
@click.option("--min-exact-match", type=Number(0, 1), metavar="SHARE", help="Exit with 1 when fewer answers are right.")
@click.option("--max-flip-rate", type=Number(0, 1), metavar="SHARE", help="Exit with 1 when more answers differ.")
@image_options
@json_option
def command(
    bundle: Path | None,
    dataset_name: str,
    n: int | None,
    split: str | None,
    per_image: int,
    report: Path | None,
    out: Path | None,
    write: Path | None,
    force: bool,
    min_exact_match: float | None,
    max_flip_rate: float | None,
    as_json: bool,
    loading: dict[str, Any],
    **asking: Any,
) -> None:
    """Ask BUNDLE every question of a data set and count the right answers.

    With --reference the PyTorch model answers the same questions, and answers that differ are counted and listed. Both
    are greedy. Without it nothing but the runtime is needed. With --write and no BUNDLE, the data set is only saved.

    With --out or --report, answers are kept beside that file as they come: after an interruption, the same command with
    --resume goes on. docs/eval.md describes the files of a data set of your own.

    \b
    Examples:
      edgevlm eval inspector-int8 --dataset inspection --reference inspector --report report.html
      edgevlm eval inspector-int8 --dataset my-parts/ --match loose --out results.json --resume
      edgevlm eval --dataset inspection --n 100 --write parts/
    """
    from edgevlm.evaluation.datasets import DatasetOptions, load_dataset
    from edgevlm.evaluation.run import EvalOptions, evaluate
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_runtime.errors import EdgeVLMError

    if max_flip_rate is not None and asking["reference"] is None:
        raise click.UsageError("--max-flip-rate needs --reference.")
    log = _check_places(report, out, write, force, asking["resume"])
    dataset = load_dataset(dataset_name, DatasetOptions(n=n, split=split, per_image=per_image))
    if write is not None:
        _write(dataset, write)
    if bundle is None:
        if write is None or report is not None or out is not None:
            raise click.UsageError("Missing argument 'BUNDLE'.")
        _only_written(dataset, write, as_json)
        return
    with stdout_kept_clean(), StageProgress() as progress:
        evaluation = evaluate(EvalOptions(bundle=bundle, log=log, anew=force, **loading, **asking), dataset, progress)
        problems = _keep(evaluation, report, out)
    failed = _gates(evaluation, min_exact_match, max_flip_rate)
    _show(evaluation, as_json)
    if problems:
        raise EdgeVLMError("; ".join(problems))
    for line in failed:
        note(line)
    click.get_current_context().exit(CHECK_FAILED if failed else 0)


def _check_places(report: Path | None, out: Path | None, write: Path | None, force: bool, resume: bool) -> Path | None:
    """Before anything is asked: all can be written, and nothing is written over. Returns where answers are kept."""
    from edgevlm_runtime.reading import is_regular
    from edgevlm_runtime.saving import check_distinct, check_file, check_folder

    remedy = f"choose another name, {'' if resume else 'go on with --resume, '}or replace it with --force"
    beside = out or report
    log = None if beside is None or not beside.name else beside.with_suffix(".answers.jsonl")
    check_distinct(report, out, log)
    # whose log it is, the evaluation sees before it asks
    begun = resume and log is not None and is_regular(log) and log.stat().st_size > 0
    for file in filter(None, (report, out, log)):
        check_file(file, force or (begun and (file == log or _is_result(file))), remedy)
    if write is not None:
        check_folder(write, force)
    return log


def _is_result(file: Path) -> bool:
    """Whether an evaluation wrote this: --resume replaces nothing else."""
    from edgevlm_runtime.reading import open_regular

    try:
        with open_regular(file) as opened:
            head = opened.read(1 << 16)
    except OSError:
        return False
    return _PAGE in head or (head.startswith(b"{") and all(key in head for key in (b'"bundle"', b'"dataset"')))


def _keep(evaluation: Evaluation, report: Path | None, out: Path | None) -> list[str]:
    """Write the files that were asked for; lines about those that could not be written, and where they are instead."""
    from edgevlm.evaluation.report import page
    from edgevlm.evaluation.report import report as result
    from edgevlm_runtime.saving import keep

    def every_case() -> str:
        return json_text(plain(result(evaluation, all_cases=True))) + "\n"

    files = {out: every_case, report: lambda: page(evaluation)}
    return keep({file: render for file, render in files.items() if file is not None})


def _write(dataset: Dataset, folder: Path) -> None:
    save = getattr(dataset, "write", None)
    if save is None:
        raise click.UsageError("--write saves data sets that come with edgevlm; this one is a folder already.")
    note(f"written: {save(folder)}")


def _only_written(dataset: Dataset, folder: Path, as_json: bool) -> None:
    if as_json:
        emit_json(WrittenReport(len(dataset), str(folder)))


def _gates(evaluation: Evaluation, min_exact_match: float | None, max_flip_rate: float | None) -> list[str]:
    """What was asked for and does not hold."""
    right, flips = evaluation.scores.exact_match["edgevlm"], evaluation.scores.flip_rate
    failed = []
    if min_exact_match is not None and (right is None or right < min_exact_match):
        failed.append(f"exact match is {_percent(right)}, at least {_percent(min_exact_match)} was asked for")
    if max_flip_rate is not None and flips is not None and flips > max_flip_rate:
        failed.append(f"{_percent(flips)} of the answers differ, at most {_percent(max_flip_rate)} was asked for")
    return failed


def _show(evaluation: Evaluation, as_json: bool) -> None:
    from edgevlm.evaluation.report import report

    if as_json:
        emit_json(report(evaluation))
        return
    compared = evaluation.options.reference is not None
    rows = [("question", "n", "bundle", *(("PyTorch", "differ") if compared else ()))]
    for kind, one in (*evaluation.by_question.items(), ("all", evaluation.scores)):
        extra = (_percent(one.exact_match["reference"]), str(one.flips)) if compared else ()
        rows.append((kind, str(one.n), _percent(one.exact_match["edgevlm"]), *extra))
    click.echo(table(rows))
    _show_calibration(evaluation)
    for result in evaluation.results:
        if result.flipped:
            click.echo(
                f"differs: {result.image}: {result.question} "
                f"bundle {result.edgevlm!r}, PyTorch {result.reference!r}, right {result.expected!r}"
            )


def _show_calibration(evaluation: Evaluation) -> None:
    found = evaluation.calibration
    if found is None:
        return
    text = (
        f"choices: {found.n} questions, calibration error {_percent(found.ece)} at temperature {found.temperature:.3f}"
    )
    click.echo(text if found.temperature == 1 else f"{text}, {_percent(found.ece_raw)} without")
    if evaluation.calibration_file is not None:
        click.echo(f"temperature written: {evaluation.calibration_file}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
