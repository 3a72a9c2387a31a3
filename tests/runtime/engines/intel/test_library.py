"""openvino is imported without what reports, and where it is missing one line says what to install."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgevlm_runtime.engines import make_engine
from edgevlm_runtime.engines.intel.library import import_openvino
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions

SPY = """
import sys
from edgevlm_runtime.engines.intel.library import import_openvino
found = import_openvino()
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry
assert openvino_telemetry.HERE, "a program may still import it"
print(found.__version__, *sorted(name for name in sys.modules if "telemetry" in name))
"""


def test_nothing_that_reports_is_imported(tmp_path: Path) -> None:
    """A package of that name stands first on the path; importing openvino as such would import it."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    (tmp_path / "openvino_telemetry.py").write_text("HERE = True\n", "utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", SPY], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "openvino.tools.ovc.telemetry_stub" in done.stdout


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"^openvino is not installed: .*pip install .*openvino"):
        make_engine(RuntimeOptions(engine="openvino"))
    assert sys.modules.get("openvino_telemetry", "gone") is not None


def test_one_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "openvino":
            raise ImportError("libtbb.so.12: cannot open\nshared object file")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ProviderError, match=r"openvino is installed and does not load: libtbb\.so\.12: cannot open sh"):
        import_openvino()
