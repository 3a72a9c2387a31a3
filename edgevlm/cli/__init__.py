"""The command line. One file for each command, imported only when that command is wanted (`edgevlm.terminal.group`)."""

from __future__ import annotations

import click

from edgevlm.terminal import streams
from edgevlm.terminal.group import CommandGroup
from edgevlm.terminal.output import setup_logging

COMMANDS = (
    "export",
    "compile",
    "run",
    "serve",
    "map",
    "watch",
    "replay",
    "eval",
    "verify",
    "bench",
    "tune",
    "inspect",
    "models",
    "triton",
    "doctor",
)
"""Names of the commands, in the order of the help text; each is `command` in the file `edgevlm/cli/NAME.py`."""
FOLDERS = {"map": "scale", "triton": "scale"}
"""Folders of `edgevlm/cli/` that some of these files are in."""

DEBUG_VARIABLE = "EDGEVLM_DEBUG"
SETTINGS = {"max_content_width": 100}


@click.group(cls=CommandGroup, commands_in="edgevlm.cli", names=COMMANDS, folders=FOLDERS, context_settings=SETTINGS)
@click.version_option(package_name="edgevlm", message="edgevlm %(version)s")
@click.option(
    "--debug",
    is_flag=True,
    envvar=DEBUG_VARIABLE,
    show_envvar=True,
    help="Log everything to stderr, and show the traceback of an error.",
)
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Vision-language models on small machines: export a checkpoint to a bundle, and ask it about images.

    \b
    Examples:
      edgevlm export llava --fp16 -o llava-fp16
      edgevlm run llava-fp16 --image part.png --prompt "Is there a scratch?"
      edgevlm inspect llava-fp16
      edgevlm doctor

    Every command takes --json: one JSON object on stdout, everything else on stderr.

    Exit codes: 0 done; 1 what was checked does not hold; 2 bad usage or bad input, with one line on stderr that says
    what is wrong and what to do; 130 interrupted; 141 nobody read the result to its end.
    """
    context.obj = debug
    setup_logging(debug)


def main() -> None:
    """Entry point of the `edgevlm` script."""
    streams.prepare()
    cli(prog_name="edgevlm")
