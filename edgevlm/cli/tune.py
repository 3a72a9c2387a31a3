"""`edgevlm tune`: fit the runtime to this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.engines import HEADER, lines
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Whole, loading_options

if TYPE_CHECKING:
    from edgevlm_runtime.checks.tune import Fit


@click.command("tune", short_help="Fit a bundle to this machine.")
@click.argument("bundle", type=FilePath())
@loading_options()
@click.option("--rounds", type=Whole(1, 100), metavar="N", default=5, show_default=True, help="Rounds after a warm-up.")
@click.option("--dry-run", is_flag=True, help="Measure and say, and keep nothing.")
@click.option("--reset", is_flag=True, help="Measure nothing: remove what was kept.")
@json_option
def command(bundle: Path, loading: dict[str, Any], rounds: int, dry_run: bool, reset: bool, as_json: bool) -> None:
    """Measure which installed engine runs each graph of BUNDLE fastest here, and how many prompt tokens at once, and
    remember it.

    Only an engine with which the bundle passes its self-test is taken, and only where it is 5 % faster than ONNX
    Runtime. What was found is kept in the user's cache folder, for this bundle, processor and number of threads, and
    used by run, serve, watch, map, replay and bench whenever no --engine and no other --provider than cpu is named; it
    is not used any more when an engine's version is another. It takes some seconds, or minutes for large models; let
    nothing else run meanwhile.

    With --engine, or another --provider than cpu, engines are not compared: only the prompt is measured. Workers of map
    have one thread each unless they are told otherwise: tune with --threads 1 for them.

    \b
    Examples:
      edgevlm tune llava-int8
      edgevlm tune llava-int8 --dry-run
      edgevlm tune llava-int8 --threads 4 --json
      edgevlm tune llava-int8 --reset
    """
    from edgevlm.benchmark.tuned import report
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_runtime import load
    from edgevlm_runtime.checks.tune import tune
    from edgevlm_runtime.engines.assigned.words import DEFAULT

    if reset:
        if dry_run:
            raise click.UsageError("--reset measures nothing: leave out --dry-run.")
        _reset(bundle, loading, as_json)
        return
    with stdout_kept_clean(), StageProgress() as progress:
        vlm = load(bundle, **{"engine": DEFAULT, **loading})
        found = tune(vlm, rounds, progress, engines="engine" not in loading, keep=not dry_run)
    if as_json:
        emit_json(report(str(bundle), found))
        return
    rows = [("chunk", "tokens/s")]
    rows += [(str(size), f"{speed:.0f}") for size, speed in found.chunk.tokens_per_s.items()]
    click.echo(table(rows))
    click.echo(f"prefill_chunk {found.chunk.prefill_chunk}")
    for line in _said(found):
        click.echo(line)
    if found.not_compared is not None:
        note(f"Engines: {found.not_compared}")
    note("nothing is kept" if found.file is None else f"kept in {found.file}")


def _reset(bundle: Path, loading: dict[str, Any], as_json: bool) -> None:
    from edgevlm.benchmark.tuned import ResetReport
    from edgevlm_runtime.bundle.folder import Bundle
    from edgevlm_runtime.engines.assigned import tuned

    removed = tuned.forget(tuned.key_of(Bundle.open(bundle, "size"), loading.get("threads")))
    if as_json:
        emit_json(ResetReport(None if removed is None else str(removed)))
    else:
        click.echo("nothing was kept" if removed is None else f"removed {removed}")


def _said(found: Fit) -> Iterator[str]:
    """A table of every engine on every graph, and a line for each graph."""
    if not found.choices:
        return
    yield table([HEADER, *(line for choice in found.choices for line in lines(choice.graph, choice.trials))])
    for choice in found.choices:
        gain = f", {choice.gain:.2f} times faster than ONNX Runtime" if choice.gain > 1 else ""
        yield f"{choice.graph}: {choice.engine}{gain}"
