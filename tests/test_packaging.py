"""The three distributions: what their wheels carry, and that they declare what they import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = {"edgevlm": ROOT, "edgevlm_runtime": ROOT / "runtime", "edgevlm_export": ROOT / "export"}

each_project = pytest.mark.parametrize("package", PROJECTS)


def project(package: str) -> dict:
    return tomllib.loads((PROJECTS[package] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


PROVIDED = {"triton_python_backend_utils"}
"""In no distribution: Triton's server has it, and the file that imports it runs there (edgevlm/triton/model.py)."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: str) -> set[str]:
    """Distributions that a package's project names, extras for users included."""
    table = project(package)
    extras = table.get("optional-dependencies", {})
    users = [line for extra, lines in extras.items() if extra != "dev" for line in lines]
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in [*table["dependencies"], *users]}


def imported(package: str) -> set[str]:
    """Top-level names of everything a package imports anywhere."""
    names = set()
    for path in (PROJECTS[package] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {package} - PROVIDED


@each_project
def test_wheel_carries_every_file_of_the_package(package, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(PROJECTS[package])], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    carried = set(zipfile.ZipFile(wheel).namelist())
    folder = PROJECTS[package] / package
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {path.relative_to(PROJECTS[package]).as_posix() for path in files}
    assert f"{package}/py.typed" in carried
    assert expected - carried == set()
    assert {name for name in carried if not name.startswith(f"{package}-")} - expected == set()
    assert any(name.endswith("licenses/LICENSE") for name in carried)


@each_project
def test_what_is_imported_is_declared(package):
    providers = metadata.packages_distributions()
    sources = {name: {canonical(one) for one in providers.get(name, [name])} for name in imported(package)}
    undeclared = {name for name, distributions in sources.items() if not distributions & declared(package)}
    assert undeclared == set()


@each_project
def test_one_version_everywhere(package):
    version = project("edgevlm")["version"]
    assert project(package)["version"] == version
    assert import_module(package).__version__ == version
    own = [line for line in project(package)["dependencies"] if line.startswith("edgevlm")]
    extras = project(package).get("optional-dependencies", {})
    own += [line for lines in extras.values() for line in lines if line.startswith("edgevlm")]
    assert [line for line in own if not line.endswith(f"=={version}")] == []


def test_the_two_onnxruntimes_stay_apart():
    extras = project("edgevlm_runtime")["optional-dependencies"]
    assert "onnxruntime" not in " ".join(project("edgevlm_runtime")["dependencies"])
    assert [line.partition(">")[0] for line in extras["cpu"] + extras["gpu"]] == ["onnxruntime", "onnxruntime-gpu"]


def test_licence_travels_with_every_distribution():
    texts = {(folder / "LICENSE").read_text(encoding="utf-8") for folder in PROJECTS.values()}
    assert len(texts) == 1
    assert "Apache License" in texts.pop()


class TestConstraints:
    lines = tuple(
        line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[:1] not in ("", "#")
    )

    def test_are_versions_only(self):
        assert [line for line in self.lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)] == []

    def test_hold_everything_a_project_names(self):
        held = {canonical(line.partition("==")[0]) for line in self.lines}
        development = project("edgevlm")["optional-dependencies"]["dev"]
        named = {canonical(re.match(r"[\w.-]+", line)[0]) for line in development}
        named |= set().union(*map(declared, PROJECTS))
        assert {name for name in named - held if not name.startswith("edgevlm")} <= {"onnxruntime-gpu", "atheris"}

    def test_are_what_is_installed(self):
        """What runs here is what the file says was tested."""
        other = {}
        for line in self.lines:
            name, _, version = line.partition("==")
            try:
                installed = metadata.version(name).partition("+")[0]
            except metadata.PackageNotFoundError:
                continue  # held for another platform or Python
            if installed != version:
                other[name] = installed
        assert other == {}
