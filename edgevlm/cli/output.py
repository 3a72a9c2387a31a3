"""Where output goes: results to stdout (as one JSON object with --json), everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = {
    "edgevlm": logging.WARNING,
    "edgevlm_runtime": logging.WARNING,
    "edgevlm_runtime.images": logging.INFO,  # what was done to a picture
    "edgevlm_export": logging.INFO,
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024.0


def json_option(function: F) -> F:
    """Decorator: the `--json` flag every command has, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(function)


def note(text: str) -> None:
    """Say something that is not the result."""
    click.echo(text, err=True)


def emit_json(payload: Mapping[str, Any]) -> None:
    """Print the command's one JSON object. ASCII, so that any device's locale can print it."""
    click.echo(json.dumps(payload, indent=2))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr what libraries print while the command works."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def setup_logging(debug: bool) -> None:
    """Log to stderr, one line each: what the exporter is about to do, warnings; everything of ours when `debug`."""
    root = logging.getLogger()
    if not any(isinstance(handler, _EchoHandler) for handler in root.handlers):
        root.addHandler(_EchoHandler())
    for package, level in _LEVELS.items():
        logging.getLogger(package).setLevel(logging.DEBUG if debug else level)


class _EchoHandler(logging.Handler):
    """Writes to whatever stderr is at that moment: progress bars and tests put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        click.echo(f"{level}{self.format(record)}", err=True)


def human_bytes(count: int) -> str:
    """12345678 as `11.8 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def table(rows: Sequence[tuple[str, ...]], indent: int = 2) -> str:
    """Rows as aligned columns; plain text, so that it survives a serial console."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    pad = " " * indent
    return "\n".join(
        (pad + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip() for row in rows
    )
