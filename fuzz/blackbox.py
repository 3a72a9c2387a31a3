"""The input being tried, where another process finds it when this one dies or hangs: in a mapped file."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("<QQQ")
"""How many inputs were begun, how many of them succeeded, and the length of the latest."""


class BlackBox:
    """`BlackBox(file, largest)` makes one to write to; `read` looks into it from elsewhere."""

    def __init__(self, file: Path, largest: int) -> None:
        with file.open("w+b") as opened:
            opened.truncate(_HEAD.size + largest)
            self._map = mmap.mmap(opened.fileno(), 0)
        self._begun = self._succeeded = 0

    def begin(self, data: bytes) -> None:
        """Note an input."""
        self._begun += 1
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        self._map[: _HEAD.size] = _HEAD.pack(self._begun, self._succeeded, len(data))

    def succeed(self) -> None:
        """Note that the latest was no bad input."""
        self._succeeded += 1


@dataclass(frozen=True, slots=True)
class Record:
    """What is found in one."""

    begun: int = 0
    succeeded: int = 0
    data: bytes = b""


def read(file: Path) -> Record:
    """The record; an empty one where no input was begun."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return Record()
    begun, succeeded, length = _HEAD.unpack_from(data.ljust(_HEAD.size, b"\0"))
    return Record(begun, succeeded, data[_HEAD.size : _HEAD.size + length])
