"""What the user reads when something goes wrong: one line, and which exit code goes with it."""

from __future__ import annotations

import errno
import shlex
import sys
from functools import singledispatch

import click

CHECK_FAILED = 1
"""The thing checked does not hold."""
BAD_INPUT = 2
"""Bad usage or bad input; also a failure of ours, so that 1 always means a check that ran and did not hold."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells have it."""
READER_GONE = 141
"""The reader of the output left (`| head`): 128 + SIGPIPE, as shells have it."""

REQUIREMENTS = {
    "edgevlm_export": ("edgevlm[export]",),
    "PIL": ("pillow",),
    "fsspec": ("edgevlm[bulk]",),
    "pyarrow": ("edgevlm[bulk]",),
    "ray": ("edgevlm[ray]",),
    "tokenizers": ("--no-deps", "tokenizers"),  # see device-requirements.txt
}
"""What to tell pip for a package that is not installed, where its name alone is not it."""

ALTERNATIVES = {"onnxruntime": " (or onnxruntime-gpu for NVIDIA, never both)"}

OWN_PACKAGES = ("edgevlm", "edgevlm_runtime")


class ResultLost(click.ClickException):
    """Standard output did not take the result."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror or error}: the result was not written")
        self.reader_gone = error.errno == errno.EPIPE


def error_line(error: Exception) -> str:
    """The error as one line: what, where, what to do."""
    return f"Error: {' '.join(_describe(error).split())}"


@singledispatch
def _describe(error: Exception) -> str:
    from edgevlm_runtime.errors import EdgeVLMError  # only now: help and completion start without the runtime

    if isinstance(error, EdgeVLMError):
        return str(error)
    return (
        f"unexpected {type(error).__name__}: {error}: this is a fault of edgevlm; "
        "set EDGEVLM_DEBUG=1 for the traceback to report"
    )


@_describe.register
def _(error: click.ClickException) -> str:
    return error.format_message()


@_describe.register
def _(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "edgevlm"
    return f"{error.format_message()} See: {command} --help"


@_describe.register
def _(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


@_describe.register
def _(error: MemoryError) -> str:
    return f"not enough memory{f': {error}' if str(error) else ''}: close other programs, or use a smaller model"


@_describe.register
def _(error: ModuleNotFoundError) -> str:
    package, _, inside = (error.name or "").partition(".")
    if package in OWN_PACKAGES or (inside and package == "edgevlm_export"):
        return f"a file of {package} is missing: {error}: install edgevlm again"
    if not str(error).startswith("No module named"):
        return str(error)  # not Python's own words: ours, which say what to do
    return f"the package {package} is not installed: {install_line(package)}"


def install_line(package: str) -> str:
    """The line that installs what a command needs and a smaller installation has not."""
    requirements = REQUIREMENTS.get(package, (package,))
    try:
        from edgevlm_runtime.installing import pip_install
    except ImportError:  # what is missing keeps the runtime itself from being imported
        return shlex.join((sys.executable, "-m", "pip", "install", *requirements))
    return f"{pip_install(*requirements)}{ALTERNATIVES.get(package, '')}"
