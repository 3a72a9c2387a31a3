"""Every error is one line."""

from __future__ import annotations

import click
import pytest

from edgevlm.terminal.errors import error_line, install_line
from edgevlm_runtime.errors import BundleAltered, UnsupportedModel
from edgevlm_runtime.installing import pip_install


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BundleAltered("a/decoder.onnx is not\nthe file"), "Error: a/decoder.onnx is not the file"),
        (UnsupportedModel("model type not supported: bert"), "Error: model type not supported: bert"),
        (click.ClickException("no"), "Error: no"),
        (click.UsageError("no"), "Error: no See: edgevlm --help"),
        (FileNotFoundError(2, "No such file or directory", "x.bin"), "Error: No such file or directory: x.bin"),
        (OSError(28, "No space left on device"), "Error: No space left on device"),
        (OSError("odd"), "Error: odd"),
        (MemoryError(), "Error: not enough memory: close other programs, or use a smaller model"),
        (
            ModuleNotFoundError("No module named 'edgevlm_export'", name="edgevlm_export"),
            f"Error: the package edgevlm_export is not installed: {pip_install('edgevlm[export]')}",
        ),
        (
            ModuleNotFoundError("No module named 'PIL.Image'", name="PIL.Image"),
            f"Error: the package PIL is not installed: {pip_install('pillow')}",
        ),
        (
            ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"),
            f"Error: the package onnxruntime is not installed: {install_line('onnxruntime')}",
        ),
        (ModuleNotFoundError("tokenizers: do this", name="tokenizers"), "Error: tokenizers: do this"),
        (
            ModuleNotFoundError("gone", name="edgevlm_export.api"),
            "Error: a file of edgevlm_export is missing: gone: install edgevlm again",
        ),
    ],
)
def test_line(error, line):
    assert error_line(error) == line


def test_onnxruntime_has_an_alternative():
    assert install_line("onnxruntime") == f"{pip_install('onnxruntime')} (or onnxruntime-gpu for NVIDIA, never both)"


def test_a_fault_of_ours_says_so():
    assert error_line(ZeroDivisionError("division by zero")).startswith(
        "Error: unexpected ZeroDivisionError: division by zero: this is a fault of edgevlm"
    )
