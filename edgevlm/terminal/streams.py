"""The standard streams of a command: one may be closed, its reader may leave, its disk be full, its locale be small.

What goes to standard output is the result: when it is lost, the command has failed. What goes to standard error is not:
it never ends the work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import click

from edgevlm.terminal.errors import BAD_INPUT, ResultLost


class Stream:
    """A stream of text, or of bytes; `failed` is told when it cannot be written."""

    def __init__(self, stream: Any, failed: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> Stream:
        """The stream of bytes under it: `click.echo` takes it for bytes, and where the locale has ASCII alone."""
        return Stream(self._stream.buffer, self._failed)

    def write(self, content: str | bytes) -> int:
        """Write, or tell."""
        try:
            return int(self._stream.write(content))
        except OSError as error:
            self._failed(error)
            return len(content)

    def flush(self) -> None:
        """Flush, or tell."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)


def prepare() -> None:
    """Make the streams of this process such. Leaves with exit code 2 where standard output is closed."""
    _fill()
    logging.captureWarnings(True)
    out, err = sys.stdout, sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (to the end)
    for stream in (out, err):
        if hasattr(stream, "reconfigure"):
            # A model may answer in characters that a device's locale cannot print.
            stream.reconfigure(errors="replace")
    sys.stderr = cast(TextIO, Stream(err, lambda error: None))
    if out is None:
        click.echo("Error: standard output is closed, where results go: redirect it, > FILE or > /dev/null", err=True)
        sys.exit(BAD_INPUT)
    sys.stdout = cast(TextIO, Stream(out, _lost))


def give_up() -> None:
    """Let nothing more reach standard output: what Python would write at its end would fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lost(error: OSError) -> None:
    raise ResultLost(error) from error


def _fill() -> None:
    """Open the closed ones among the first three descriptors: a file of ours would take the number, and what native
    libraries print would land in it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
