"""How many cores a graph run should use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores this process may use: hyper-threads counted once, affinity and container quota respected."""
    allowed = _allowed_cpus()
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(siblings), _quota()))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    try:
        return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """CPUs a control group (version 2) grants, rounded up; the host's count where there is no limit."""
    try:
        limit, period = _QUOTA.read_text().split()[:2]
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1
