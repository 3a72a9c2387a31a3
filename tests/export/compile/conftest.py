"""Real TensorRT-RTX, where it is installed: `make test-rtx` installs it, `make test` does without."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if os.environ.get("EDGEVLM_RTX_REQUIRED", "0") != "0":
    import tensorrt_rtx  # noqa: F401  # what was installed has to be there
REASON = "tensorrt-rtx is not installed (pip install 'edgevlm-export[tensorrt-rtx]'; make test-rtx does)"
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason=REASON)


@pytest.fixture(scope="session")
def rtx() -> Any:
    """The real module."""
    return pytest.importorskip("tensorrt_rtx", reason=REASON)


@pytest.fixture
def stub_rtx(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A STAND-IN with a version and nothing else, for what is decided before the library is asked."""
    stub = ModuleType("tensorrt_rtx")
    stub.__version__ = "0.0-stub"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", stub)
    return stub


@pytest.fixture(scope="session")
def standard_bundle(tiny_checkpoint: Path, export_bundle: Any) -> Path:
    """The tiny model in standard operators, float16, for engines."""
    return Path(export_bundle(tiny_checkpoint, precision="fp16", target="tensorrt-rtx"))


@pytest.fixture
def own_standard_bundle(standard_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    import shutil

    return Path(shutil.copytree(standard_bundle, tmp_path / standard_bundle.name))
