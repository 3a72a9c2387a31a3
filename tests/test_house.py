"""Habits of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import conftest
from tests.support.repository import tracked
from tools import rooms

ROOT = Path(__file__).parents[1]
SOURCES = ("edgevlm", "runtime/edgevlm_runtime", "export/edgevlm_export")
FAMILIES = ROOT / "export/edgevlm_export/families"

LONGEST_FILE = 300
SHORTEST_FILE = 15
REGISTRY_ENTRIES = ("tensorrt", "tensorrt_rtx", "idefics3")
"""Files whose name is the key they are found by."""


def sources() -> list[Path]:
    return [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_names_a_machines_folders():
    machine = re.compile(rb"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/")
    found = {
        str(path.relative_to(ROOT)): match[0].decode()
        for path in tracked()
        if path != Path(__file__) and (match := machine.search(path.read_bytes()))
    }
    assert found == {}


def test_installation_names_no_host():
    files = ["Makefile", "constraints.txt", ".ci/run", ".pre-commit-config.yaml"]
    files += ["pyproject.toml", "runtime/pyproject.toml", "export/pyproject.toml"]
    hosts = re.compile(r"https?:|index-url|find-links|--index|--no-index")
    assert [name for name in files if hosts.search((ROOT / name).read_text(encoding="utf-8"))] == []


def test_imports_run_in_no_circle():
    """Neither between modules nor between the rooms of a distribution."""
    for package in rooms.PACKAGES:
        arrows = rooms.modules(package)
        assert rooms.circles(arrows) == []
        assert rooms.circles(rooms.rooms(arrows)) == []


def test_pictures_are_opened_in_one_place():
    """Orientation, depth and limits would be forgotten in a second one."""
    opens = re.compile(r"Image\.open\(|image_utils import|imread\(")
    found = {str(path.relative_to(ROOT)) for path in sources() if opens.search(path.read_text(encoding="utf-8"))}
    assert found == {"runtime/edgevlm_runtime/images/load.py"}


def test_circles_are_found():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert rooms.circles(arrows) == [["b", "c"]]
    assert rooms.circles({**arrows, "d": {"a"}}) == [["a", "b", "c", "d"]]


def test_no_room_is_crowded_and_no_drawer_nearly_empty():
    assert rooms.crowded() == {}
    long, short = {}, {}
    for path in sources():
        lines = len(path.read_text("utf-8").splitlines())
        if lines > LONGEST_FILE:
            long[str(path.relative_to(ROOT))] = lines
        if lines < SHORTEST_FILE and path.stem not in REGISTRY_ENTRIES and not path.stem.startswith("_"):
            short[str(path.relative_to(ROOT))] = lines
    assert (long, short) == ({}, {})


def test_the_runtime_has_no_import_for_type_checkers_alone():
    """A name needed only by a type checker would hide a circle."""
    runtime = [path for path in sources() if "edgevlm_runtime" in path.parts]
    assert [path.name for path in runtime if "TYPE_CHECKING" in path.read_text(encoding="utf-8")] == []


def test_modules_say_what_they_are_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_architecture_names_every_family_and_folder():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    families = [path.stem for path in FAMILIES.rglob("*.py") if path.stem != "__init__"]
    assert families
    assert [name for name in families if f"{name}.py" not in text] == []
    assert [folder for folder in SOURCES if f"{Path(folder).name}/" not in text] == []


def test_places_of_tiers_exist():
    places = (*conftest.UNIT, *conftest.WIDE, *conftest.LONG)
    assert [name for name in places if not (conftest.TESTS / name).exists()] == []


def test_ci_runs_what_developers_run():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    made = [found[1] for line in lines if (found := re.match(r"(?:env .*)?\b(make [a-z-]+)$", line))]
    assert made == [
        "make demo",
        "make check",
        "make test",
        "make test-wide",
        "make test-openvino",
        "make test-rtx",
        "make fresh",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "venv",
        "demo",
        "test",
        "test-wide",
        "test-full",
        "test-openvino",
        "test-rtx",
        "test-arm64",
        "fresh",
        "sbom",
        "check",
        "bench",
    ],
)
def test_make_knows_its_targets(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
