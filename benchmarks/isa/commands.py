"""Programs of the system, in the environment that children of ours have; all that is started here goes through it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from edgevlm_runtime import child


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is captured."""
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=child.environment())


def must(*words: object) -> None:
    """Run a command. Raises `RuntimeError` with the end of what it said when it fails."""
    done = run(*words)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def lines(*words: object) -> Iterator[str]:
    """What a command prints, while it runs. Raises `RuntimeError` when it fails."""
    given, quiet = list(map(str, words)), subprocess.DEVNULL
    with subprocess.Popen(given, stdout=subprocess.PIPE, stderr=quiet, text=True, env=child.environment()) as process:
        assert process.stdout is not None
        yield from (line.rstrip("\n") for line in process.stdout)
    if process.returncode != 0:
        raise RuntimeError(f"{words[0]} cannot read {words[-1]}")


def become(*words: object) -> None:
    """Go on as another program; does not return."""
    given = list(map(str, words))
    os.execvpe(given[0], given, child.environment())
