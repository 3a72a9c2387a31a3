"""Python children of ours, started for real in a folder that wants to be imported from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgevlm_runtime import child
from edgevlm_runtime.privacy import SWITCHES, switch_reports_off

TELL = """
import json, os, sys
import types, colorsys
print("ü", file=sys.stderr)
print(json.dumps({
    "path": sys.path, "stdin": sys.stdin.read(), "environment": dict(os.environ), "files": sys.getfilesystemencoding(),
    "imported": colorsys.__file__, "own": os.path.exists("imported")
}))
"""
GRANDCHILD = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import colorsys; print(colorsys.__file__)'])"
)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, full of modules that leave a mark; PYTHONPATH names it by an empty entry and by a dot."""
    for module in ("json", "types", "colorsys", "numpy", "onnxruntime", "sitecustomize_"):
        (tmp_path / f"{module}.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_of_the_current_folder_is_imported(hostile, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("PYTHONPATH", f":{elsewhere}")
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    done = child.run(["-c", TELL])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["imported"]).parent != hostile
    assert not {"", str(hostile)} & set(told["path"])
    assert str(elsewhere) in told["path"]  # how the user may have installed us
    assert told["own"] is False
    assert told["stdin"] == ""
    assert done.stderr == "ü\n"
    assert told["files"] == sys.getfilesystemencoding()
    assert {name: told["environment"][name] for name in SWITCHES} == SWITCHES


def test_nor_by_what_the_child_starts(hostile):
    done = child.run(["-c", GRANDCHILD])
    assert Path(done.stdout.strip()).name == "colorsys.py"
    assert Path(done.stdout.strip()).parent != hostile


def test_isolation_is_handed_on(monkeypatch):
    class Flags:
        isolated, ignore_environment, no_user_site = 1, 1, 1

    monkeypatch.setattr(sys, "flags", Flags)
    assert child.command(["-m", "x"]) == [sys.executable, "-P", "-I", "-E", "-s", "-m", "x"]


def test_relative_folders_stay_where_they_were(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "lib::/abs")
    assert child.environment()["PYTHONPATH"] == f"{tmp_path / 'lib'}:/abs"


def test_what_the_user_set_stays():
    environment = {"ORT_DISABLE_TELEMETRY": "0"}
    switch_reports_off(environment)
    assert environment == {**SWITCHES, "ORT_DISABLE_TELEMETRY": "0"}
    assert child.environment({"ORT_DISABLE_TELEMETRY": "0"})["ORT_DISABLE_TELEMETRY"] == "0"


def test_a_child_that_hangs_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        child.run(["-c", "import time; time.sleep(60)"], timeout=0.5)
