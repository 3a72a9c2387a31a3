"""Where output goes: results to stdout (as one JSON object with --json), everything else to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from edgevlm.json_text import Record, json_text, plain

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = {
    "edgevlm": logging.WARNING,
    "edgevlm_runtime": logging.WARNING,
    "edgevlm_runtime.images": logging.INFO,  # what was done to a picture
    "edgevlm_runtime.engines.assigned": logging.INFO,  # which engines answer, where nobody named them
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


def emit_json(record: Record) -> None:
    """Print the command's one JSON object: a dataclass that `edgevlm.cli.records` lists, whose fields are its keys."""
    click.echo(json_text(plain(record)))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr what libraries print while the command works."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def setup_logging(debug: bool) -> None:
    """Log to stderr, one line each: what the exporter is about to do, warnings; everything of ours when `debug`.

    What other packages log or warn of is for developers: it is shown when `debug`.
    """
    root = logging.getLogger()
    handler = next((one for one in root.handlers if isinstance(one, _EchoHandler)), None)
    if handler is None:
        handler = _EchoHandler()
        root.addHandler(handler)
    handler.everybody = debug
    for package, level in _LEVELS.items():
        logging.getLogger(package).setLevel(logging.DEBUG if debug else level)


class _EchoHandler(logging.Handler):
    """Writes to whatever stderr is at that moment: progress bars and tests put another in its place."""

    everybody = False
    """Whether other packages are heard."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record, if it is ours."""
        if not self.everybody and record.name.partition(".")[0] not in _LEVELS:
            return
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
