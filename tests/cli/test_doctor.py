"""`edgevlm doctor`: the real machine, and machines with something wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode

import numpy as np
import onnx
import pytest

from edgevlm import providers
from edgevlm.cli.doctor import diagnose
from edgevlm.machine import PACKAGES, ProviderState, package_versions
from edgevlm.providers import probe, probe_all
from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from edgevlm_runtime.installing import pip_install
from tests.support import records

CPU = ProviderState("CPUExecutionProvider", True)
CUDA_MISSING = ProviderState("CUDAExecutionProvider", False, "libcudart.so.13 is not on this machine")


def versions(**changed: str | None) -> dict[str, str | None]:
    return {
        **package_versions(),
        "onnxruntime": "1.31.1",
        "onnxruntime-gpu": None,
        "edgevlm-export": "0.1.0",
        **changed,
    }


def problems(*arguments):
    return [finding.what for finding in diagnose(*arguments) if finding.problem]


def test_json(spawn):
    done = spawn("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    records.check("doctor", report)
    keys = ["usable", "python", "platform", "cpu", "memory_bytes", "packages", "providers", "findings"]
    assert list(report) == keys
    assert report["usable"] is True
    assert report["packages"]["numpy"] == np.__version__
    assert {"name": "CPUExecutionProvider", "loads": True, "detail": ""} in report["providers"]
    assert "AzureExecutionProvider" not in [state["name"] for state in report["providers"]]


def test_text(invoke):
    result = invoke("doctor")
    assert result.exit_code == 0
    assert "CPUExecutionProvider  loads" in result.stdout
    assert f"onnxruntime      {onnxruntime.__version__}" in result.stdout


def test_exit_code_when_this_machine_cannot_run_a_bundle(invoke, monkeypatch):
    monkeypatch.setattr("edgevlm.providers.probe_all", lambda: ())
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["usable"] is False


def test_all_is_well():
    assert diagnose(versions(), (CPU,)) == ()


def test_both_onnxruntimes_conflict():
    found = problems(versions(**{"onnxruntime-gpu": "1.31.1"}), (CPU,))
    assert len(found) == 1
    assert "both installed" in found[0]


def test_no_onnxruntime():
    finding = diagnose(versions(onnxruntime=None), ())[0]
    assert finding.problem
    assert finding.do.startswith(pip_install("onnxruntime"))


@pytest.mark.parametrize("name", PACKAGES["runtime"])
def test_a_package_of_the_runtime_that_is_missing(name):
    assert problems(versions(**{name: None}), (CPU,)) == [f"{name} is not installed"]


WITHOUT = """
import sys
from importlib import metadata

gone, version = sys.argv.pop(1), metadata.version


class Gone:
    def find_spec(self, name, path=None, target=None):
        if name == gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def version_of_what_is_there(name):
    if name == gone:
        raise metadata.PackageNotFoundError(name)
    return version(name)


sys.meta_path.insert(0, Gone())
metadata.version = version_of_what_is_there
from edgevlm.cli import main
main()
"""


@pytest.mark.parametrize("module", ["tokenizers", "msgspec", "markupsafe"])
def test_runs_where_the_runtime_cannot_be_imported(module):
    """It says which package is missing; one that only another of its packages needs is the line that errors have."""
    command = [sys.executable, "-c", WITHOUT, module, "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if module == "markupsafe":
        line = f"Error: the package markupsafe is not installed: {sys.executable} -m pip install markupsafe\n"
        assert (done.returncode, done.stderr) == (2, line)
    else:
        found = [finding["what"] for finding in json.loads(done.stdout)["findings"] if finding["problem"]]
        assert (done.returncode, found) == (1, [f"{module} is not installed"])


def test_an_onnxruntime_that_does_not_import():
    assert len(problems(versions(), ())) == 1


def test_a_provider_that_does_not_load_is_said_and_no_problem():
    findings = diagnose(versions(), (CUDA_MISSING, CPU))
    assert [finding.problem for finding in findings] == [False]
    assert "libcudart.so.13" in findings[0].what


def test_a_device_without_the_exporter_is_well():
    findings = diagnose(versions(**{"edgevlm-export": None}), (CPU,))
    assert [finding.problem for finding in findings] == [False]
    assert findings[0].do == pip_install("edgevlm[export]")


def test_the_probes_model_is_a_valid_graph():
    encoded = providers._PROBE.partition('b64decode(\n    "')[2].partition('"')[0]
    model = onnx.load_from_string(b64decode(encoded))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_a_provider_that_is_not_there_is_not_taken_for_loaded():
    # ONNX Runtime itself only warns here and runs on the CPU.
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have CUDA")
    state = probe("CUDAExecutionProvider")
    assert state.loads is False
    assert state.detail


def test_probe_all_finds_the_cpu():
    assert CPU in probe_all()


def test_a_missing_library_is_named():
    stderr = (
        "2026-01-01 [E:onnxruntime:Default, provider_bridge_ort.cc:2430] Failed to load library "
        "libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file\n"
        "last line\n"
    )
    assert providers._reason(stderr) == "libcublasLt.so.13 is not on this machine, or not on the loader's path"


def test_a_process_that_dies_does_not_take_doctor_with_it(monkeypatch):
    monkeypatch.setattr(providers, "_PROBE", "import os; os.kill(os.getpid(), 9)")
    assert probe("CPUExecutionProvider") == ProviderState("CPUExecutionProvider", False, "the process ended with -9")


def test_a_provider_that_hangs(monkeypatch):
    monkeypatch.setattr(providers, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(providers, "PROBE_SECONDS", 0.5)
    assert probe("CPUExecutionProvider") == ProviderState("CPUExecutionProvider", False, "no answer in 0.5 s")
