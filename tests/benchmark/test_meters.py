"""Meters, on what a Linux machine shows of itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgevlm.benchmark.meters import EnergyMeter, clock_mhz, rss_mib, temperature_c
from edgevlm_runtime.peak_memory import peak_rss_mib


def powercap(root, *packages):
    """Energy counters as Linux shows them: (name, microjoules, range)."""
    for name, energy, largest in packages:
        (root / name).mkdir(exist_ok=True)
        (root / name / "energy_uj").write_text(f"{energy}\n")
        (root / name / "max_energy_range_uj").write_text(f"{largest}\n")


def test_packages_add_up_and_their_parts_do_not_count(tmp_path):
    powercap(tmp_path, ("intel-rapl:0", 1_000, 10**9), ("intel-rapl:0:0", 0, 10**9), ("intel-rapl:1", 0, 10**9))
    joules = EnergyMeter(tmp_path).start()
    powercap(tmp_path, ("intel-rapl:0", 2_001_000, 10**9), ("intel-rapl:0:0", 10**8, 10**9), ("intel-rapl:1", 10**6, 1))
    assert joules() == pytest.approx(3.0)


def test_a_counter_that_starts_again(tmp_path):
    powercap(tmp_path, ("intel-rapl:0", 9_000_000, 10_000_000))
    joules = EnergyMeter(tmp_path).start()
    powercap(tmp_path, ("intel-rapl:0", 500_000, 10_000_000))
    assert joules() == pytest.approx(1.5)


def test_nothing_to_read_is_none(tmp_path):
    assert EnergyMeter(tmp_path / "absent").start()() is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert EnergyMeter(tmp_path).start()() is None
    powercap(tmp_path, ("intel-rapl:0", "no number", 5))
    assert EnergyMeter(tmp_path).start()() is None


def test_peak_memory_is_the_processes_own():
    """A child of a large process does not count its parent's memory, and does count its own."""
    imports = "from edgevlm.benchmark.meters import rss_mib; from edgevlm_runtime.peak_memory import peak_rss_mib"
    code = imports + "; {}; print(peak_rss_mib(), rss_mib())"
    ballast = bytearray(300 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])

    def child(work: str) -> list[float]:
        done = subprocess.run([sys.executable, "-c", code.format(work)], capture_output=True, check=True, text=True)
        return [float(value) for value in done.stdout.split()]

    peak, now = child("pass")
    assert now - 1 <= peak < 150  # what is resident grows by a page or so between the two readings
    large, after = child("held = bytearray(b'x') * (200 * 2**20); del held")
    assert large > peak + 150
    assert after < large - 150
    assert min(peak_rss_mib(), rss_mib()) > 300
    assert len(ballast) == 300 * 2**20


def test_clock_and_temperature_are_figures_or_unknown():
    assert clock_mhz() is None or clock_mhz() > 0
    assert temperature_c() is None or -50 < temperature_c() < 150
