"""The processor: how many cores a graph run should use, and what its int8 products need."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

log = logging.getLogger(__name__)

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")
_EXACT_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Linux's names of the x86 instructions that add products of 8 bits in 32 bits."""


def graph_threads(wanted: int | None) -> int:
    """Threads of a graph run: those wanted, None meaning the physical cores, but no more than can run at once here.

    More would wait for each other, busily, and each has memory of its own.
    """
    return physical_cores() if wanted is None else min(wanted, usable_cores())


def told_threads(wanted: int | None) -> int:
    """As `graph_threads`; logs a warning where that is less than what was wanted."""
    threads = graph_threads(wanted)
    if wanted is not None and threads < wanted:
        log.warning("%d threads were asked for: this machine runs %d at once, which are used", wanted, threads)
    return threads


def usable_cores() -> int:
    """Cores this process may use, hyper-threads counted each: affinity and container quota respected."""
    return max(1, min(len(_allowed_cpus()), _quota()))


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


def int8_overflows(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether int8 products may overflow here: x86 without VNNI adds pairs of them in 16 bits.

    False where the system does not tell (Linux on x86 does).
    """
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "sse2" in flags and not _EXACT_INT8.intersection(flags)
