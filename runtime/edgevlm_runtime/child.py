"""Python processes of our own: everything that starts one goes through here.

A child imports nothing from the folder it is started in: that may be a folder of somebody else's pictures, or a bundle.
It has no standard input unless it is given one, speaks UTF-8 on its standard streams, and reports to nobody. The user's
own settings stay: PYTHONPATH and the user's site-packages may be how edgevlm is installed. File names keep the encoding
of the parent, since they are handed on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevlm_runtime.privacy import switch_reports_off

SETTINGS = {
    "PYTHONSAFEPATH": "1",  # as -P, for what the child starts itself
    "PYTHONIOENCODING": "utf-8",
}


def command(arguments: Sequence[object], interpreter: Path | None = None) -> list[str]:
    """A child's command line: this Python, or `interpreter`, no less isolated than the parent, and `arguments`."""
    given = ((sys.flags.isolated, "-I"), (sys.flags.ignore_environment, "-E"), (sys.flags.no_user_site, "-s"))
    python = sys.executable if interpreter is None else interpreter
    return [str(python), "-P", *(flag for on, flag in given if on), *map(str, arguments)]


def environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the parent's (or `inherited`) with what every child of ours has.

    Relative folders of PYTHONPATH, which an empty entry is too, are made absolute or left out: a child may be started
    in another folder.
    """
    made = {**(os.environ if inherited is None else inherited), **SETTINGS}
    if "PYTHONPATH" in made:
        folders = [str(Path(folder).absolute()) for folder in made["PYTHONPATH"].split(os.pathsep) if folder]
        made["PYTHONPATH"] = os.pathsep.join(folders)
    switch_reports_off(made)
    return made


def start(arguments: Sequence[object], env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start Python with `arguments`; `env` and `options` are those of `subprocess.Popen`, streams are text."""
    streams = {"stdin": subprocess.DEVNULL, "text": True, "encoding": "utf-8", "errors": "replace"}
    return subprocess.Popen(command(arguments), env=environment(env), **{**streams, **options})


def run(
    arguments: Sequence[object],
    timeout: float | None = None,
    *,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` to its end; `data` is its standard input, its output is captured.

    Raises `subprocess.TimeoutExpired`.
    """
    done = subprocess.run(
        command(arguments), input=data, env=environment(env), capture_output=True, timeout=timeout, check=False
    )
    stdout, stderr = (said.decode("utf-8", "replace").replace(os.linesep, "\n") for said in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)


def become(arguments: Sequence[object], **more: str) -> None:
    """Begin again as Python with `arguments` and `more` in the environment; does not return."""
    words = command(arguments)
    os.execve(words[0], words, {**environment(), **more})
