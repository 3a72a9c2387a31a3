"""OpenVINO's complaints as one line: its operators are named, its own source files are not."""

from __future__ import annotations

from edgevlm_runtime.engines.intel.messages import missing_operators, said

FAILED = """Exception from src/inference/src/cpp/core.cpp:84:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted. Failed operations detailed log:
-- com.microsoft.MatMulNBits with a message:
MatMulNBits limitation: accepting only a constant as a B input

Summary:
-- No conversion rule found for operations: acme.Steam, acme.Coal
-- Conversion is failed for: com.microsoft.MatMulNBits, acme.Steam
"""


def test_operators_are_named_once() -> None:
    assert missing_operators(RuntimeError(FAILED)) == ("acme.Steam", "acme.Coal", "com.microsoft.MatMulNBits")
    assert missing_operators(RuntimeError("no such file")) == ()


def test_one_line_without_its_sources() -> None:
    text = said(
        RuntimeError("Exception from src/inference/a.cpp:84:\nCheck 'x' failed at src/b.cpp:1:\nit is too small")
    )
    assert text == "it is too small"
    assert said(RuntimeError("")) == "RuntimeError"
