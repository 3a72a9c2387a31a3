"""The workstation install of README.md, and the demonstration in it to its last line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fresh.conftest import Machine

pytestmark = pytest.mark.fresh

FIGURE = re.compile(r"  (.+?)  +([\d.]+) ms  +([\d.]+) ms")


def test_whole(workstation: Machine) -> None:
    """Every requirement of every package is there, and none that has no wheel."""
    workstation.run("pip", "check")
    assert {"edgevlm", "edgevlm-export", "edgevlm-runtime", "rich", "torch", "transformers"} <= workstation.installed()
    assert workstation.installed() & {"docopt", "num2words"} == set()


def test_demonstration(workstation: Machine, demonstration: tuple[str, Path], tmp_path: Path) -> None:
    told, _ = demonstration
    assert len(re.findall(r"^  Is there a defect on this part\?  ", told, re.MULTILINE)) == 3
    right = re.search(r"(\d+) of (\d+) answers right", told)
    assert right is not None
    assert (int(right[1]) >= 14, right[2]) == (True, "15")
    figures = {what: (float(new), float(further)) for what, new, further in FIGURE.findall(told)}
    assert len(figures) == 3
    assert all(figure > 0 for pair in figures.values() for figure in pair)
    assert "new picture, 3 times" in told
    assert "further question, 12 times" in told
    again = told.rstrip().rpartition("Try:  ")[2]
    assert workstation.run("bash", "-c", again, cwd=tmp_path).stdout.strip()
