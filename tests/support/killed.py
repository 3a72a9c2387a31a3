"""Exports that end by SIGKILL, each in a process of its own, forked where the exporter is imported already."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgevlm_export.api"])


def start(checkpoint: Path, output: Path, stage: str = "", count: int = 0, force: bool = False) -> ForkServerProcess:
    """Begin an export that kills itself when it has reported `stage` more than `count` times."""
    process = CONTEXT.Process(target=_export, args=(checkpoint, output, stage, count, force))
    process.start()
    return process


def _export(checkpoint: Path, output: Path, stage: str, count: int, force: bool) -> None:
    from edgevlm_export.api import ExportOptions, export
    from tests.support import traces

    seen = 0

    def progress(name: str, done: int, total: int) -> None:
        nonlocal seen
        seen += name == stage
        if seen > count:
            os.kill(os.getpid(), signal.SIGKILL)

    traces.remember()
    export(ExportOptions(str(checkpoint), output, certificate=False, force=force), progress)
