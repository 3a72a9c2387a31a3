"""What is read off Linux's description of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevlm_runtime.engines.cores import int8_overflows


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n", True),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n", False),
        ("flags\t\t: fpu sse2 avx2 avx_vnni\n", False),
        ("Features\t: fp asimd asimddp i8mm\n", False),
        ("", False),
    ],
    ids=["avx2", "avx512-vnni", "avx-vnni", "arm", "silent"],
)
def test_int8_overflows(tmp_path: Path, text: str, wanted: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert int8_overflows(file) is wanted


def test_system_that_does_not_tell(tmp_path: Path) -> None:
    assert not int8_overflows(tmp_path / "none")
