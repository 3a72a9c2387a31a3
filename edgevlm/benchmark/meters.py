"""What the machine tells about a process and about itself: memory, energy, clock, temperature."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")
"""A processor package; its parts (cores, memory controller) carry a second number and are contained in it."""


def rss_mib() -> float:
    """Resident set of this process now, MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


class EnergyMeter:
    """Energy counters of all processor packages (Linux powercap, RAPL). Most systems let only root read them."""

    def __init__(self, root: Path = POWERCAP) -> None:
        folders = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
        self._packages = [folder for folder in folders if _PACKAGE.fullmatch(folder.name)]

    def start(self) -> Callable[[], float | None]:
        """Begin; what is returned gives the joules since then, or None where nothing can be read."""
        before = self._read()

        def joules() -> float | None:
            after = self._read()
            if before is None or after is None:
                return None
            spent = (
                # The counter starts again at zero when it is full.
                end - begin if end >= begin else end - begin + largest
                for (begin, largest), (end, _) in zip(before, after, strict=True)
            )
            return sum(spent) / 1e6

        return joules

    def _read(self) -> list[tuple[int, int]] | None:
        """(microjoules, largest value) of each package."""
        try:
            return [
                (int((folder / "energy_uj").read_text()), int((folder / "max_energy_range_uj").read_text()))
                for folder in self._packages
            ] or None
        except (OSError, ValueError):
            return None


def busy_share() -> float:
    """Share of all cores' time that other programs take, observed for a second while this one sleeps."""
    return round(float(psutil.cpu_percent(interval=1.0)) / 100, 3)


def clock_mhz() -> float | None:
    """Mean clock of the processor's cores, where the system tells."""
    try:
        found = psutil.cpu_freq()
    except (OSError, AttributeError, NotImplementedError, RuntimeError):
        return None
    return round(found.current, 0) if found and found.current else None


def temperature_c() -> float | None:
    """The hottest sensor, where the system has any."""
    sensors: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    values = [entry.current for entries in sensors.values() for entry in entries if entry.current]
    return max(values, default=None)
