"""An export that is killed leaves nothing that loads as a bundle, and the next one cleans up after it."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_export.api import ExportOptions, export
from edgevlm_runtime.errors import OutputError
from tests.support import killed as exports

POINTS = [
    ("plan: tracing", 1),
    ("write: weights", 0),
    ("write: weights", 40),
    ("write: digests", 0),
    ("self-test: recording", 0),
]


def killed(checkpoint: Path, output: Path, stage: str, count: int, force: bool = False) -> None:
    process = exports.start(checkpoint, output, stage, count, force)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("stage", "count"), POINTS)
def test_killed_at_a_stage(tiny_checkpoint, tmp_path, stage, count):
    output = tmp_path / "bundle"
    killed(tiny_checkpoint, output, stage, count)
    assert not output.exists()
    assert not any(loads(folder) for folder in tmp_path.iterdir())


@pytest.mark.parametrize(("stage", "count"), [("write: weights", 0), ("write: digests", 0)])
def test_an_older_bundle_survives_its_replacement(tiny_checkpoint, tiny_bundle, tmp_path, stage, count):
    """Killed under --force, the older bundle is still there; the next export sweeps what was left."""
    output = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = (output / "manifest.json").read_bytes()
    killed(tiny_checkpoint, output, stage, count, force=True)
    assert (output / "manifest.json").read_bytes() == before
    assert [folder for folder in tmp_path.iterdir() if loads(folder)] == [output]
    export(ExportOptions(str(tiny_checkpoint), output, force=True, self_test=False, certificate=False))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_another_export_finished_first(tiny_checkpoint, tiny_bundle, tmp_path):
    """Without --force, a bundle that appeared meanwhile is not overwritten."""
    output = tmp_path / "bundle"

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "write: digests" and done == total:
            shutil.copytree(tiny_bundle, output)

    with pytest.raises(OutputError, match="exists"):
        export(ExportOptions(str(tiny_checkpoint), output, self_test=False, certificate=False), progress)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert loads(output)


def test_killed_at_any_time(tiny_checkpoint, tmp_path):
    """At a moment that no stage names."""
    output = tmp_path / "bundle"
    process = exports.start(tiny_checkpoint, output)
    while not list(tmp_path.iterdir()):  # it has begun to write
        assert process.exitcode is None
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not any(loads(folder) for folder in tmp_path.iterdir())


def loads(folder: Path) -> bool:
    try:
        edgevlm_runtime.load(folder)
    except edgevlm_runtime.EdgeVLMError:
        return False
    return True
