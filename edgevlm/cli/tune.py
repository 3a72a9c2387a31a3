"""`edgevlm tune`: fit the runtime to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Whole, loading_options


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What was measured, and where it is kept."""

    bundle: str
    """The folder, as it was given."""
    prefill_chunk: int
    """How many tokens of a prompt are computed fastest at once."""
    prefill_tokens_per_s: dict[str, float]
    """Tokens per second, by the size of the chunk."""
    positions: int
    """Tokens of the prompt that was measured."""
    file: str
    """Where the figure is kept."""


@click.command("tune", short_help="Fit a bundle to this machine.")
@click.argument("bundle", type=FilePath())
@loading_options()
@click.option("--rounds", type=Whole(1, 100), metavar="N", default=5, show_default=True, help="Rounds after a warm-up.")
@json_option
def command(bundle: Path, loading: dict[str, Any], rounds: int, as_json: bool) -> None:
    """Measure how many prompt tokens at once BUNDLE computes fastest here, and remember it.

    The figure is kept in the user's cache folder, for this bundle, processor, engine and number of threads, and used
    whenever the bundle is loaded so and no other prefill_chunk is asked for. It takes some seconds; let nothing else
    run meanwhile.

    \b
    Examples:
      edgevlm tune llava-int8
      edgevlm tune llava-int8 --threads 4 --json
    """
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_runtime import load

    with stdout_kept_clean(), StageProgress() as progress:
        vlm = load(bundle, **loading)
        tuning, file = vlm.tune(rounds, lambda done, total: progress("measuring", done, total))
    if as_json:
        speeds = {str(size): round(speed, 1) for size, speed in tuning.tokens_per_s.items()}
        emit_json(TuneReport(str(bundle), tuning.prefill_chunk, speeds, tuning.positions, str(file)))
        return
    rows = [("chunk", "tokens/s")]
    rows += [(str(size), f"{speed:.0f}") for size, speed in tuning.tokens_per_s.items()]
    click.echo(table(rows))
    click.echo(f"prefill_chunk {tuning.prefill_chunk}")
    note(f"kept in {file}")
