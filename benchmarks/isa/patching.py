"""Copies of an environment whose libraries cannot ask the processor what it has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import folders
from benchmarks.isa import commands

CPUID, INVALID = b"\x0f\xa2", b"\x06\xa2"
"""The instruction, and two bytes that no compiler makes: the first is invalid in 64-bit mode, of which the system tells
the process."""
_CPUID_LINE = re.compile(r"\s*([0-9a-f]+):\s+cpuid\s*")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of an ELF file: where it is in memory and in the file, bytes."""

    address: int
    size: int
    offset: int


def copy_environment(source: Path, target: Path) -> dict[str, int]:
    """Hard links to all of `source`, with patched libraries in place of those that use the instruction; how often each
    of them does, by name. What is there stays."""
    found: dict[str, int] = {}

    def make(copy: Path) -> None:
        commands.must("cp", "-al", source, copy)
        found.update({file.name: count for file in libraries(copy) if (count := patch(file))})

    folders.ensure(target, make)
    return found


def libraries(folder: Path) -> Iterator[Path]:
    """Shared libraries in a folder, links to them left out."""
    yield from (file for file in sorted(folder.rglob("*.so*")) if file.is_file() and not file.is_symlink())


def patch(file: Path) -> int:
    """Put `INVALID` for every `cpuid` of a library; how many there were. The file is replaced: its other links stay
    as they are."""
    data = bytearray(file.read_bytes())
    if not data.startswith(b"\x7fELF") or CPUID not in data:
        return 0
    parts, places = sections(file), cpuid_places(file)
    for address in places:
        part = next(part for part in parts if part.address <= address < part.address + part.size)
        start = part.offset + address - part.address
        if data[start : start + len(CPUID)] != CPUID:
            raise RuntimeError(f"{file}: no cpuid at {address:#x}: objdump and the file do not agree")
        data[start : start + len(CPUID)] = INVALID
    if places:
        partial = file.with_name(f".{file.name}.partial")
        partial.write_bytes(data)
        shutil.copymode(file, partial)
        partial.replace(file)
    return len(places)


def sections(file: Path) -> list[Section]:
    """Those with code or data."""
    rows = [line.split() for line in commands.lines("objdump", "-h", file)]
    numbered = [row for row in rows if len(row) == 7 and row[0].isdigit()]
    return [Section(int(row[3], 16), int(row[2], 16), int(row[5], 16)) for row in numbered]


def cpuid_places(file: Path) -> list[int]:
    """Addresses of the instruction. Those of its bytes that are part of others are none: so it is disassembled."""
    matches = (_CPUID_LINE.fullmatch(line) for line in commands.lines("objdump", "-d", "--no-show-raw-insn", file))
    return [int(match[1], 16) for match in matches if match]
