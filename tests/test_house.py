"""Habits of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("edgevlm", "runtime/edgevlm_runtime", "export/edgevlm_export")
FAMILIES = ROOT / "export/edgevlm_export/families"

LONGEST_FILE = 300
LONGEST_BODY = 45


def tracked() -> list[Path]:
    """Files that belong to the repository: known to git, or not ignored by it."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and lines of every function's body, its docstring apart."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (node.end_lineno - body[0].lineno + 1 if body else 0)


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


def test_files_are_short():
    long = {
        str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text("utf-8").splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in sources()
        for name, lines in functions(ast.parse(path.read_text(encoding="utf-8")))
        if lines > LONGEST_BODY
    }
    assert long == {}


def test_modules_say_what_they_are_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_architecture_names_every_family_and_folder():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    families = [path.stem for path in FAMILIES.glob("*.py") if path.stem not in ("__init__", "base")]
    assert families
    assert [name for name in families if f"{name}.py" not in text] == []
    assert [folder for folder in SOURCES if f"{Path(folder).name}/" not in text] == []


def test_ci_runs_what_developers_run():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test"]


@pytest.mark.parametrize("target", ["venv", "demo", "test", "test-full", "test-arm64", "check", "bench"])
def test_make_knows_its_targets(target):
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
