"""What to install, told for every way that edgevlm may have come to a machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevlm_runtime import __version__, installing
from edgevlm_runtime.installing import FOLDERS, IN_REPOSITORY, pip_install, pip_replace, upgrade

ROOT = Path(__file__).parents[2]
GIT = {"url": "https://example.org/edgevlm.git", "vcs_info": {"vcs": "git", "commit_id": "1a2b3c"}}
Came = Callable[..., None]


@pytest.fixture
def came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Came:
    """Make a machine on which each distribution named is installed, with this `direct_url.json` (None: an index)."""

    def make(**urls: dict[str, Any] | str | None) -> None:
        site = tmp_path / "site"
        for name, url in urls.items():
            folder = site / f"{name}-{__version__}.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {__version__}\n")
            if url is not None:
                (folder / "direct_url.json").write_text(url if isinstance(url, str) else json.dumps(url))
        monkeypatch.setattr(sys, "path", [str(site)])
        monkeypatch.setattr(installing, "_pip", lambda: "pip")

    return make


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone in a folder whose name needs quoting."""
    folder = tmp_path / "it's a clone"
    for part in FOLDERS.values():
        (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part / "pyproject.toml", folder / part)
    return folder


def folder_of(clone: Path, part: str = "", **how: Any) -> dict[str, Any]:
    return {"url": (clone / part).as_uri(), "dir_info": how}


def words(line: str) -> list[str]:
    command, install, *rest = shlex.split(line)
    assert (command, install) == ("pip", "install")
    return rest


def test_from_an_index(came):
    came(edgevlm=None, edgevlm_runtime=None)
    assert pip_install("edgevlm[export]") == "pip install 'edgevlm[export]'"
    assert pip_install("tensorrt", "cuda-python") == "pip install tensorrt cuda-python"
    assert upgrade() == "pip install --upgrade edgevlm edgevlm-runtime"
    assert (
        pip_replace("onnxruntime", "onnxruntime-gpu") == "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    )


@pytest.mark.parametrize("installed", ["edgevlm", "edgevlm_runtime", "edgevlm_export"])
def test_from_a_clone(came, clone, installed):
    """Any one of the three tells where the others are."""
    came(**{installed: folder_of(clone, FOLDERS[installed.replace("_", "-")])})
    assert words(pip_install("edgevlm[export]")) == [str(clone / "export")]
    assert words(pip_install("edgevlm-export[tensorrt-rtx]")) == [f"{clone / 'export'}[tensorrt-rtx]"]
    assert pip_install("onnxruntime") == "pip install onnxruntime"


def test_from_a_clone_editable(came, clone):
    came(edgevlm=folder_of(clone, editable=True), edgevlm_runtime=folder_of(clone, "runtime", editable=True))
    assert words(pip_install("edgevlm[export]")) == ["-e", str(clone / "export")]
    pull, line = upgrade().split(", then ")
    assert shlex.split(pull) == ["git", "-C", str(clone), "pull"]
    assert words(line) == ["-e", str(clone), "-e", str(clone / "runtime")]


def test_from_a_clone_that_is_gone(came, clone):
    came(edgevlm_runtime=folder_of(clone, "runtime", editable=True))
    shutil.rmtree(clone)
    assert pip_install("edgevlm[export]") == "in a clone of edgevlm, pip install ./export"
    assert pip_install("onnxruntime") == "pip install onnxruntime"


def test_from_git(came):
    came(edgevlm_runtime={**GIT, "subdirectory": "runtime"})
    address = "git+https://example.org/edgevlm.git"
    assert words(pip_install("edgevlm[export]")) == [f"edgevlm-export @ {address}@1a2b3c#subdirectory=export"]
    assert words(upgrade()) == ["--upgrade", f"edgevlm-runtime @ {address}#subdirectory=runtime"]


def test_from_a_wheel(came, tmp_path):
    wheel = f"{tmp_path.as_uri()}/edgevlm-{__version__}-py3-none-any.whl"
    came(edgevlm={"url": wheel, "archive_info": {}})
    expected = f"edgevlm-export @ {tmp_path.as_uri()}/edgevlm_export-{__version__}-py3-none-any.whl"
    assert words(pip_install("edgevlm[export]")) == [expected]
    assert upgrade() == "install newer wheels of edgevlm"


@pytest.mark.parametrize("damaged", ["", "{", "[]", '"x"', "{}", '{"url": 3}', '{"dir_info": 3}'])
def test_a_damaged_record_counts_for_an_index(came, damaged):
    came(edgevlm=damaged)
    assert pip_install("edgevlm[export]") == "pip install 'edgevlm[export]'"


def test_the_pip_named_is_that_of_the_python_that_runs(tmp_path):
    """As a shell without the environment on its PATH finds another pip, or none."""
    script = "from edgevlm_runtime.installing import pip_install; print(pip_install('onnx'))"
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "pip").write_text("#!/bin/sh\n")
    (scripts / "pip").chmod(0o755)
    elsewhere = f"{shlex.quote(sys.executable)} -m pip install onnx"
    own = Path(sys.executable).parent
    for path, line in ((scripts, elsewhere), (own, "pip install onnx" if shutil.which("pip", path=own) else elsewhere)):
        command = [sys.executable, "-c", script]
        told = subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == line


def test_what_hints_ask_for_exists():
    """The folders, and the extras."""
    for requirement, ours in {**IN_REPOSITORY, **{one: (one, "") for one in FOLDERS}}.items():
        for distribution, extra in (ours, re.fullmatch(r"([\w-]+)(.*)", requirement).groups()):
            project = tomllib.loads((ROOT / FOLDERS[distribution] / "pyproject.toml").read_text("utf-8"))["project"]
            assert project["name"] == distribution
            assert not extra or extra[1:-1] in project["optional-dependencies"]


def test_no_other_place_tells_what_to_install():
    """One helper for all of them: no line of the product names pip, the helper and its guard apart."""
    packages = ("edgevlm", "runtime/edgevlm_runtime", "export/edgevlm_export")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 100
    told = {file.relative_to(ROOT).as_posix() for file in files if "pip install" in file.read_text(encoding="utf-8")}
    assert told == {"runtime/edgevlm_runtime/installing.py"}
