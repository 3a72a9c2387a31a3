"""Libraries that are missing, or that find no GPU. The library without a GPU is a FAKE: none is to be had in tests."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgevlm_export.compile.messages import MemoryFigures
from edgevlm_export.compile.modules import COMPILERS, load_module, make_builder
from edgevlm_export.compile.options import CompileOptions
from edgevlm_runtime.engines.nvidia.messages import make_logger
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.installing import pip_install
from tests.support.fake_nvidia import FakeLogger


def without_gpu(said: str | None) -> ModuleType:
    """What pybind11 does with a null pointer: the reason is in the log, not in the exception."""
    module = ModuleType("tensorrt")
    module.ILogger = FakeLogger

    def builder(logger: object) -> None:
        if said is not None:
            logger.log(FakeLogger.Severity.ERROR, said)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module.Builder = builder
    return module


@pytest.mark.parametrize(
    ("target", "module", "packages"),
    [
        ("tensorrt", "tensorrt", ["tensorrt", "cuda-python"]),
        ("tensorrt-rtx", "tensorrt_rtx", ["edgevlm-export[tensorrt-rtx]"]),
    ],
)
def test_missing_library(target: str, module: str, packages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, COMPILERS[target].module, None)
    with pytest.raises(ExportError) as error:
        load_module(COMPILERS[target])
    assert str(error.value) == f"{module} is not installed: {pip_install(*packages)}"


def test_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open\\nshared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(
        ExportError, match=r"tensorrt is installed and does not load: libnvinfer\.so\.11: cannot open sh"
    ):
        load_module(COMPILERS["tensorrt"])


def test_library_without_a_gpu() -> None:
    module = without_gpu("CUDA initialization failure with error: 35")
    with pytest.raises(ExportError) as error:
        make_builder(COMPILERS["tensorrt"], module, make_logger(module))
    assert "tensorrt is installed and finds no GPU (CUDA initialization failure with error: 35)" in str(error.value)
    assert "--target tensorrt-rtx" in str(error.value)


def test_library_without_a_gpu_that_says_nothing() -> None:
    module = without_gpu(None)
    with pytest.raises(ExportError, match="factory function returned nullptr"):
        make_builder(COMPILERS["tensorrt"], module, make_logger(module))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "openvino"}, "unknown target: openvino: known are tensorrt, tensorrt-rtx"),
        ({"target": "tensorrt", "compute_capabilities": (87,)}, "builds for the GPU of this machine: leave out --sm"),
        ({"target": "tensorrt-rtx", "compute_capabilities": (8,)}, "write SM 8.6 as 86"),
        ({"target": "tensorrt-rtx", "compute_capabilities": (86, 86)}, "named twice"),
        ({"target": "tensorrt-rtx", "timing_cache": Path("t")}, "measures nothing while it builds"),
        ({"target": "tensorrt", "workspace_mib": 0}, "bad workspace: 0 MiB"),
    ],
)
def test_options_that_mean_nothing(options: dict, said: str) -> None:
    with pytest.raises(ExportError) as error:
        CompileOptions(bundle=Path("b"), **options)
    assert said in str(error.value)


def test_compute_capabilities_are_sorted() -> None:
    """The same GPUs in another order make the same engine."""
    options = CompileOptions(bundle=Path("b"), target="tensorrt-rtx", compute_capabilities=(120, 86))
    assert options.sms == (86, 120)
    assert CompileOptions(bundle=Path("b"), target="tensorrt-rtx").sms == (86, 89, 120)
    assert CompileOptions(bundle=Path("b"), target="tensorrt").sms == ()


def test_what_the_builder_says_of_memory() -> None:
    figures = MemoryFigures()
    for line in (
        "Total Activation Memory: 8753152 bytes",
        "Total Activation Memory: 3072 bytes",
        "Total Weights Memory: 491904 bytes",
    ):
        figures(line)
    assert figures.found == {"device_memory_bytes": 8753152, "weight_bytes": 491904}
    assert not figures.too_little
    figures("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)")
    assert figures.too_little
