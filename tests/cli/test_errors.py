"""Every error is one line."""

from __future__ import annotations

import click
import pytest

from edgevlm.cli.errors import error_line
from edgevlm_runtime.errors import BundleAltered, UnsupportedModel


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
            "Error: the package edgevlm_export is not installed: pip install 'edgevlm[export]'",
        ),
        (ModuleNotFoundError("gone", name="torch"), "Error: the package torch is not installed: pip install torch"),
        (
            ModuleNotFoundError("gone", name="edgevlm_export.api"),
            "Error: a file of edgevlm_export is missing: gone: install edgevlm again",
        ),
    ],
)
def test_line(error, line):
    assert error_line(error) == line


def test_a_fault_of_ours_says_so():
    assert error_line(ZeroDivisionError("division by zero")).startswith(
        "Error: unexpected ZeroDivisionError: division by zero: this is a fault of edgevlm"
    )
