"""Compiling a peer takes one compiler for each core and no more: a bound of the command, and of whatever it starts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import llama_cpp, tools
from benchmarks.peers.base import Room

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
BOUNDS = {"CMAKE_BUILD_PARALLEL_LEVEL": "1", "MAKEFLAGS": "-j1", "MAX_JOBS": "1"}


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process, and what it starts, on one core."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def shown(log: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that `run` starts."""
    tools.run([sys.executable, "-c", SHOW], log, environment)
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


def test_llama_cpp_is_built_with_one_compiler_for_each_core(tmp_path, monkeypatch, one_core):
    commands: list[list[str]] = []
    source = tmp_path / "llama.cpp" / "llama_cpp_python-1.0" / "vendor" / "llama.cpp"
    (source / llama_cpp._AMX_SOURCE).parent.mkdir(parents=True)
    (source / llama_cpp._AMX_SOURCE).write_text("")
    (source / "CMakeLists.txt").write_text("")
    room = Room(tmp_path, "a-shape")
    monkeypatch.setattr(llama_cpp, "make_environment", lambda *_: {})
    monkeypatch.setattr(llama_cpp, "run", lambda command, log: commands.append([str(word) for word in command]))
    llama_cpp.install(room)
    (build,) = [command for command in commands if "--build" in command]
    assert build[build.index("--parallel") + 1] == "1"
    assert build[build.index("--target") + 1 :] == list(llama_cpp.TARGETS)
    assert not [word for word in build if word.startswith("-j")]


def test_what_a_command_builds_by_itself_is_bound_too(tmp_path, monkeypatch, one_core):
    for name in BOUNDS:
        monkeypatch.delenv(name, raising=False)
    found = shown(tmp_path / "log")
    assert {name: found.get(name) for name in BOUNDS} == BOUNDS


def test_a_bound_of_the_users_own_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("MAX_JOBS", "3")
    assert shown(tmp_path / "log")["MAX_JOBS"] == "3"
    assert shown(tmp_path / "log", {"MAX_JOBS": "4"})["MAX_JOBS"] == "4"
