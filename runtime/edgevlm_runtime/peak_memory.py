"""The largest resident set this process has had."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def peak_rss_mib(status: Path = Path("/proc/self/status")) -> float:
    """Largest resident set of this process so far, MiB, mapped files included; 0 where the system does not tell.

    Linux's VmHWM rather than `ru_maxrss` where there is a choice: a new process starts with its parent's figure there.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) / 1024 if found else _maximum_mib()


def _maximum_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return largest / (2**20 if sys.platform == "darwin" else 1024)
