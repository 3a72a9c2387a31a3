"""One engine built in a process of its own, so that it comes out the same each time and its memory is its own.

TensorRT-RTX numbers a graph's free dimensions in an order that depends on where its objects lie in memory: builds of
one decoder in one process differ in a few bytes (measured with 1.7.1: about one in three). In a fresh process with
fixed addresses, on one core, they do not; where the system refuses fixed addresses, a warning says so. A builder that
the system kills for memory takes nothing else along.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgevlm_export.compile.build import BuiltEngine, out_of_memory
from edgevlm_export.compile.options import CompileOptions
from edgevlm_runtime import child
from edgevlm_runtime.bundle.manifest import GraphInfo
from edgevlm_runtime.errors import ExportError

if TYPE_CHECKING:
    from edgevlm_export.planning.plan import Progress  # which imports torch

log = logging.getLogger(__name__)

WORKER = ("-m", "edgevlm_export.compile.worker")
FIXED = "EDGEVLM_FIXED_ADDRESSES"
"""Environment variable of a worker that has begun again without address randomisation."""
INTERRUPTED = 130
_KILLED = -9
_KEPT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "SYSTEMROOT", "TEMP", "TMPDIR", "VIRTUAL_ENV")
"""Of the environment; the rest would move the worker's memory about."""


def build_isolated(
    options: CompileOptions, graph: str, info: GraphInfo, output: Path, progress: Progress
) -> BuiltEngine:
    """As `build_engine`, in a process of its own. Raises what that raises, and `ExportError` when it was killed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as file:
        # The worker is told nothing that changes from build to build, such as paths: its memory must look the same.
        place = f"/proc/self/fd/{file.fileno()}" if sys.platform.startswith("linux") else str(output.absolute())
        asked = {**asdict(options), "bundle": ".", "compute_capabilities": options.sms}
        job = {"options": asked, "graph": graph, "info": asdict(info), "output": place}
        process = child.start(
            [*WORKER, json.dumps(job, default=str)],
            stdout=subprocess.PIPE,
            cwd=options.bundle,
            env={"PYTHONHASHSEED": "0", **{name: os.environ[name] for name in _KEPT if name in os.environ}},
            pass_fds=(file.fileno(),) if os.name == "posix" else (),
        )
    with process:
        assert process.stdout is not None
        try:
            last = _follow(process.stdout, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode == _KILLED:
        raise ExportError(out_of_memory(options, graph))
    if "error" in last:
        raise ExportError(last["error"])
    if "built" not in last:
        raise ExportError(f"the builder of the {graph} ended with exit code {process.returncode} and said nothing")
    return msgspec.convert(last["built"], BuiltEngine)


def _follow(lines: Any, progress: Progress) -> Mapping[str, Any]:
    last: dict[str, Any] = {}
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # a line of some library's
            last = json.loads(line)
            if "warning" in last:
                log.warning("%s", last["warning"])
            if "progress" in last:
                progress(*last["progress"])
    return last
