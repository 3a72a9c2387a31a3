"""Facts about the machine, read from descriptions as different kernels write them."""

from __future__ import annotations

import pytest

from edgevlm.machine import PACKAGES, memory, package_versions, processor

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu fma f16c avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd aes asimdhp asimddp i8mm
"""


@pytest.mark.parametrize(
    ("text", "features"),
    [(X86, ("avx2", "avx512", "avx512_vnni", "amx_int8", "f16c")), (ARM, ("dotprod", "i8mm")), ("", None)],
)
def test_features(tmp_path, text, features):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert processor(path).features == features


def test_name_is_the_first_cores_where_the_system_tells(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(X86)
    assert processor(path).name == "Intel(R) Xeon(R) Processor"


def test_a_system_without_cpuinfo(tmp_path):
    cpu = processor(tmp_path / "missing")
    assert cpu.features is None
    assert cpu.name
    assert cpu.physical_cores >= 1
    assert cpu.usable_cores >= 1


def test_memory():
    found = memory()
    assert 0 < found.available <= found.total


def test_versions_of_what_is_installed_and_of_what_is_not(monkeypatch):
    monkeypatch.setitem(PACKAGES, "more", ("no-such-distribution",))
    versions = package_versions()
    assert versions["edgevlm"] == "0.1.0"
    assert versions["no-such-distribution"] is None
