"""`edgevlm compile`: options, and what it says where the library is missing. Engines: tests/export/compile/."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from edgevlm_export.compile import run
from edgevlm_export.compile.build import BuiltEngine
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.bundle.manifest import FileRecord
from tests.support import records

Invoke = Callable[..., Result]


def test_missing_library_is_one_line(
    invoke: Invoke, refused: Callable[..., str], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    line = refused(invoke("compile", tiny_bundle, "--target", "tensorrt"))
    assert line.startswith("Error: tensorrt is not installed: ")
    assert line.endswith("pip install tensorrt cuda-python")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "other"], "unknown target: other: known are tensorrt, tensorrt-rtx"),
        (["--target", "tensorrt-rtx", "--sm", "ada"], "'ada' is not a list of compute capabilities"),
        (["--target", "tensorrt", "--sm", "8.7"], "builds for the GPU of this machine: leave out --sm"),
        ([], "Missing option '--target'"),
    ],
)
def test_bad_options(invoke: Invoke, refused: Callable[..., str], arguments: list[str], said: str) -> None:
    assert said in refused(invoke("compile", "bundle", *arguments))


def test_json(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library would make, and needs a GPU's software for, is made up."""
    profile = Profile("prefill", {"sequence": (1, 320, 1024)})
    built = BuiltEngine(FileRecord("ab", 7), (profile,), device_memory_bytes=None, weight_bytes=5, seconds=0.5)
    made = run.CompileReport(Path("/elsewhere/bundle"), "tensorrt-rtx", "1.3", (86, 89), {"decoder": built}, 1.5)
    monkeypatch.setattr(run, "compile_bundle", lambda *_: made)
    result = invoke("compile", "bundle", "--target", "tensorrt-rtx", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("compile", found)
    assert found["bundle"] == "bundle"  # as it was given
    assert found["engines"]["decoder"]["profiles"] == [{"name": "prefill", "sizes": {"sequence": [1, 320, 1024]}}]


def test_bundle_that_is_not_there(
    invoke: Invoke, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", ModuleType("tensorrt_rtx"))  # the bundle is looked at first
    assert "no such bundle" in refused(invoke("compile", tmp_path / "none", "--target", "tensorrt-rtx"))
