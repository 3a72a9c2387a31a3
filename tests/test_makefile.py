"""`make` where Python cannot make the environment: one line that says what to do, and nothing left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What `make` runs to find out is `PYTHON -c CODE`.
OLD = "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[2])"
NO_ENSUREPIP = "import sys; sys.modules['ensurepip'] = None; exec(sys.argv[2])"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A file for a Python that is not quite one."""
    if os.name == "nt":
        pytest.skip("needs a shell script in Python's place")
    return tmp_path / "python"


def said_by_make(python: Path, environment: Path) -> list[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", f"PYTHON={python}", f"VENV={environment}", "venv"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not environment.exists()
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error: ")]


@pytest.mark.parametrize(
    ("code", "said"),
    [(OLD, "needs Python 3.11 or newer"), (NO_ENSUREPIP, "no venv or ensurepip"), (None, "is older or missing")],
    ids=["old", "no ensurepip", "missing"],
)
def test_one_line(code: str | None, said: str, python: Path, tmp_path: Path) -> None:
    if code is not None:
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
        python.chmod(0o755)
    (line,) = said_by_make(python, tmp_path / "environment")
    assert said in line
    assert str(python) in line


def test_nothing_but_our_own_is_built_from_source() -> None:
    """A package without a wheel would take a compiler, or a build back end that a fresh environment has not."""
    dry = ["make", "--dry-run", "--always-make", "venv", "sbom", "test-full"]
    shown = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    installing = [line for line in shown if " -m pip " in line and " install " in line]
    assert len(installing) >= 5
    assert [line for line in installing if "--only-binary :all:" not in line] == []
    built = {found for line in installing for found in re.findall(r"--no-binary (\S+)", line)}
    assert built <= {"tensorrt-rtx,tensorrt-rtx-cu13"}, "pure Python, which needs no compiler"
