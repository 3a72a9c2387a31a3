"""Other programs, run for what they print; one that fails ends in one line."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


class CannotCheckError(Exception):
    """Something this check needs is not there: one line that says what, and what to install."""


class CommandError(Exception):
    """A program ended badly: one line with how it ended and the last thing it said."""


def output(command: Sequence[str | Path], **environment: str) -> str:
    """What `command` prints on stdout; `environment` is added to this process' own.

    Raises `CommandError` where it does not start, exits with another code than 0, or takes longer than half an hour.
    """
    arguments = [str(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=1800,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{arguments[0]}: {error}") from error
    if done.returncode != 0:
        raise CommandError(f"{Path(arguments[0]).name} {_ended(done.returncode)}: {_last_words(done)}")
    return done.stdout


def _ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that says something, of stderr before stdout."""
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
