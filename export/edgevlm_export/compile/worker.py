"""The process that builds one engine, and tells its parent on stdout, one JSON object per line; see `isolated`."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from edgevlm_export.compile.build import build_engine
from edgevlm_export.compile.isolated import FIXED, INTERRUPTED, WORKER
from edgevlm_export.compile.modules import load_module
from edgevlm_export.compile.options import CompileOptions
from edgevlm_runtime import child
from edgevlm_runtime.bundle.manifest import GraphInfo
from edgevlm_runtime.errors import EdgeVLMError, reason

log = logging.getLogger(__name__)

_ASK = 0xFFFFFFFF
"""To `personality(2)`: change nothing."""
_ADDR_NO_RANDOMIZE = 0x0040000
_RANDOM = (
    "address randomisation cannot be switched off here (a container's default seccomp profile forbids it): the engine "
    "works, but another build of it may differ in a few bytes"
)


def main(job: str) -> int:
    """Build what `job` says. Exit codes are the command line's."""
    warning = _fix_addresses()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def send(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    if warning is not None:
        send({"warning": warning})
    asked = json.loads(job)
    info = msgspec.convert(asked["info"], GraphInfo)
    options = msgspec.convert(asked["options"], CompileOptions, dec_hook=lambda kind, value: kind(value))
    try:
        module = load_module(options.resolved)
        output = Path(asked["output"])
        built = build_engine(module, options, asked["graph"], info, output, lambda *step: send({"progress": step}))
    except EdgeVLMError as error:
        send({"error": str(error)})
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        log.debug("the builder failed", exc_info=True)
        send({"error": f"the builder of the {asked['graph']} failed: {type(error).__name__}: {reason(error)}"})
        return 2
    send({"built": asdict(built)})
    return 0


def _fix_addresses() -> str | None:
    """Begin again without address randomisation, on one core; once, and only on Linux.

    Returns what keeps two builds from being the same bytes, None where nothing does or the system is another.
    """
    if os.environ.get(FIXED) or not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):  # the builder is told to use one thread; one core is a second guard
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    libc = ctypes.CDLL(None)
    if libc.personality(libc.personality(_ASK) | _ADDR_NO_RANDOMIZE) != -1:
        child.become([*WORKER, *sys.argv[1:]], **{FIXED: "1"})
    return _RANDOM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
