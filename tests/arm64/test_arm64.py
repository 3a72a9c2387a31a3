"""The check itself: `inspector` on emulated Arm cores, in every precision, and its refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.arm64.cores import CORES
from tests.arm64.device import TOOLS, missing_tools
from tests.support.repository import ROOT


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.arm64", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(missing_tools() is not None, reason=missing_tools() or "")
def test_inspector_answers_as_here_on_emulated_cores():
    precisions = ("int8", "int4", "fp16", "fp32")
    done = run("--precision", *precisions)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines() if "cortex" in line]
    assert rows == [[precision, core.name] for precision in precisions for core in CORES]


def test_missing_tools_are_named_with_their_packages(tmp_path):
    done = run("--folder", tmp_path / "arm64", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: not checked: ")
    assert [name for name in (*TOOLS.values(), *(core.name for core in CORES)) if name not in line] == []
    assert not (tmp_path / "arm64").exists()


def test_a_check_without_pictures_is_refused(tmp_path):
    done = run("--folder", tmp_path / "arm64", "--pictures", 0)
    assert done.returncode == 2
    assert "--pictures" in done.stderr
