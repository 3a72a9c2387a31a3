"""Demonstrations: `python -m edgevlm.demo` asks about three parts, `python -m edgevlm.demo.camera` watches a line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgevlm.terminal.errors import BAD_INPUT, INTERRUPTED, error_line

MODEL = "inspector"


def export_model(out: Path) -> Path:
    """The shipped model in int8, exported anew into `out`; the bundle's folder."""
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_export.api import ExportOptions, export

    click.echo(f"Exporting {MODEL} to int8 ...")
    with StageProgress() as progress:
        report = export(ExportOptions(MODEL, out / f"{MODEL}-int8", precision="int8", force=True), progress)
    click.echo(f"  {report.bundle}: {report.bytes_total / 2**20:.1f} MiB in {report.seconds:.0f} s\n")
    return report.bundle


def start(main: click.Command) -> None:
    """Run a demonstration as the commands run: an error is one line."""
    try:
        main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 -- as the commands do: one line
        click.echo(error_line(error), err=True)
        sys.exit(BAD_INPUT)
