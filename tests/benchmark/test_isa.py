"""`benchmarks.isa`: a library that asks the processor what it has is told less, and others notice nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.isa import patching
from benchmarks.isa.__main__ import HIDDEN

SOURCE = Path(patching.__file__).with_name("hide_avx512.c")
ASKING = """\
#include <cpuid.h>
void ask(unsigned leaf, unsigned sub, unsigned *r) { __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]); }
const unsigned char not_one[] = {0x0f, 0xa2};
int constant(void) { return 0x0000a20f; }
"""
SAY = """\
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
found = (ctypes.c_uint * 4)()
for leaf, sub in ((0, 0), (1, 0), (7, 0), (7, 1)):
    library.ask(leaf, sub, found)
    print(*found)
print(library.constant())
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not all(map(shutil.which, ("gcc", "objdump"))),
    reason="needs gcc and objdump on x86-64 Linux",
)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "ask.c").write_text(ASKING)
    return _compiled(tmp_path / "ask.c", tmp_path / "env" / "lib" / "libask.so")


def _compiled(source: Path, made: Path) -> Path:
    made.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", made, source], check=True)
    return made


def _said(library: Path, **more: str) -> list[list[int]]:
    words = [sys.executable, "-c", SAY, str(library)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **more})
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def test_a_patched_copy_is_told_of_no_avx512(library: Path, tmp_path: Path) -> None:
    hide = _compiled(SOURCE, tmp_path / "hide.so")
    copy = tmp_path / "copy"
    assert patching.copy_environment(tmp_path / "env", copy) == {"libask.so": 1}  # and not what only looks like it
    own, hidden = _said(library), _said(copy / "lib" / "libask.so", LD_PRELOAD=str(hide))
    assert own[0] == hidden[0]  # the processor's name
    assert own[-1] == hidden[-1]
    assert not hidden[2][1] & (1 << 16), "AVX512F"
    assert not hidden[2][2] & (1 << 11), "AVX512-VNNI"
    assert not hidden[2][3] & (1 << 24), "AMX"
    assert not hidden[3][0] & (1 << 4), "AVX-VNNI"
    for leaf, (before, after) in enumerate(zip(own[2:4], hidden[2:4], strict=True)):
        assert all(b & a == a for b, a in zip(before, after, strict=True)), f"leaf 7/{leaf} has more than before"
    assert own[2][1] & (1 << 5) == hidden[2][1] & (1 << 5), "AVX2 stays as it is"


def test_the_original_stays_as_it_was(library: Path, tmp_path: Path) -> None:
    before = library.read_bytes()
    patching.copy_environment(tmp_path / "env", tmp_path / "copy")
    assert library.read_bytes() == before
    assert patching.copy_environment(tmp_path / "env", tmp_path / "copy") == {}  # what is there stays


def test_what_is_no_library_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.so.txt"
    file.write_bytes(patching.CPUID * 3)
    assert patching.patch(file) == 0
    assert file.read_bytes() == patching.CPUID * 3


def test_a_library_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "broken.so"
    file.write_bytes(b"\x7fELF" + patching.CPUID)
    with pytest.raises(RuntimeError, match="objdump cannot read"):
        patching.patch(file)


def test_names_that_are_hidden() -> None:
    flags = "flags : fpu avx avx2 avx512f avx512_vnni avx512_bf16 avx_vnni amx_int8 amx_tile fma\n"
    assert HIDDEN.sub("", flags) == "flags : fpu avx avx2 fma\n"
