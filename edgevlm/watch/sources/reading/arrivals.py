"""Which files of a folder have come and are complete."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

UNFINISHED = (".part", ".tmp")
MOST_KNOWN = 100_000
"""Files that are remembered as given; those that are no longer there are forgotten first."""

Version: TypeAlias = tuple[int, int, int]
"""Size, time of change, inode: another one is another picture, under the same name."""


@dataclass(slots=True)
class _Waiting:
    version: Version
    since: float
    """`time.monotonic()` since when it has not changed."""


class Arrivals:
    """Every version of every file once: when it has not changed for a while, and has something in it."""

    def __init__(self, folder: Path, pattern: str, settle_s: float, existing: bool) -> None:
        self._folder, self._pattern, self._settle_s = folder, pattern, settle_s
        self._given: dict[Path, Version] = {}
        self._waiting: dict[Path, _Waiting] = {}
        if not existing:
            self._given = {file: version for file in self._files() if (version := _version(file)) is not None}

    def list_folder(self) -> None:
        """Look at all that is there, in the order of names."""
        self.changed(self._files())

    def changed(self, files: Iterable[Path]) -> None:
        """Something was said of these."""
        for file in files:
            version = _version(file) if self._wanted(file.name) else None
            if version is None:
                self._waiting.pop(file, None)
                self._given.pop(file, None)
            elif version != self._given.get(file):
                before = self._waiting.get(file)
                if before is None or before.version != version:
                    self._waiting[file] = _Waiting(version, time.monotonic())

    def complete(self) -> Iterator[Path]:
        """Those that are complete now, in the order in which they came; they are not given again."""
        for file, waiting in list(self._waiting.items()):
            version = _version(file)
            if version is None:
                del self._waiting[file]
            elif version != waiting.version:
                self._waiting[file] = _Waiting(version, time.monotonic())
            elif version[0] > 0 and time.monotonic() - waiting.since >= self._settle_s:
                del self._waiting[file]
                self._remember(file, version)
                yield file

    def _remember(self, file: Path, version: Version) -> None:
        self._given[file] = version
        if len(self._given) > MOST_KNOWN:
            self._given = {known: one for known, one in self._given.items() if known.exists()}
        while len(self._given) > MOST_KNOWN:
            del self._given[next(iter(self._given))]

    def _files(self) -> list[Path]:
        try:
            return sorted(Path(entry.path) for entry in os.scandir(self._folder) if self._wanted(entry.name))
        except OSError:
            return []

    def _wanted(self, name: str) -> bool:
        hidden = name.startswith(".") or name.lower().endswith(UNFINISHED)
        return not hidden and fnmatch.fnmatch(name, self._pattern)


def _version(file: Path) -> Version | None:
    """None for what is no file, or gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if file.is_file() else None
