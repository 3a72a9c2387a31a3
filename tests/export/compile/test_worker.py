"""The process that builds an engine, with a FAKE builder in it: whatever goes wrong arrives as one line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.compile import isolated
from edgevlm_export.compile.options import CompileOptions
from edgevlm_runtime.bundle.manifest import GraphInfo
from edgevlm_runtime.errors import ExportError

INFO = GraphInfo("decoder.onnx", (), (), "fp16", 1, 1)
START = """
import ctypes, errno, os, sys
{before}
from edgevlm_export.compile import build, worker
worker.load_module = lambda compiler: None
def broken(*given):
    raise {error}
build._build = broken
sys.exit(worker.main(sys.argv[1]))
"""
FIXED = f"os.environ[{isolated.FIXED!r}] = '1'"
REFUSED = """
class Libc:
    personality = staticmethod(lambda asked: 0 if asked == 0xFFFFFFFF else -1)
ctypes.CDLL = lambda name: Libc
def refuse(*given):
    raise PermissionError
os.sched_setaffinity = refuse
"""


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, error: str, before: str = FIXED) -> str:
    """What the parent says of a builder that raises `error`."""
    script, real = START.format(error=error, before=before), isolated.subprocess.Popen

    def start(command: list[str], **more: Any) -> Any:
        return real([command[0], "-c", script, command[-1]], **more)

    monkeypatch.setattr(isolated.subprocess, "Popen", start)
    options = CompileOptions(bundle=folder, target="tensorrt-rtx", workspace_mib=64)
    with pytest.raises(ExportError) as caught:
        isolated.build_isolated(options, "decoder", INFO, folder / "decoder.engine", lambda *_: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("MemoryError('std::bad_alloc')", "the builder ran out of memory while it compiled the decoder: "),
        (
            "OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
            "cannot write the engine of the decoder: No space left on device: make room",
        ),
        ("ValueError('first line\\nsecond')", "the builder of the decoder failed: ValueError: first line second"),
    ],
)
def test_what_the_builder_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, said: str
) -> None:
    assert build(tmp_path, monkeypatch, error).startswith(said)


def test_random_addresses_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container that forbids `personality`, and affinity too: the build goes on, and says what that means."""
    with caplog.at_level(logging.WARNING):
        assert "ValueError" in build(tmp_path, monkeypatch, "ValueError()", REFUSED)
    assert "another build of it may differ in a few bytes" in caplog.text
