"""Records from disk: of one file with its closed ones, or of every chain in a folder.

    for record in records(Path("records.jsonl")): ...     # raises at the first line that is none
    for read in lines(file): ...                          # damaged lines too, each with its place

A last line without its end is being written at this moment, and is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgevlm.watch.records import files
from edgevlm.watch.records.chain import LONGEST, TooNew, decode, holds, link
from edgevlm.watch.records.record import Record
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import open_regular, why

FEW = 16
"""Lines of a file that are looked at to see whether it holds records."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a record file."""

    file: Path
    line: int
    """1 for the first."""
    data: bytes

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.file}, line {self.line}"

    @property
    def sealed(self) -> bool:
        """Whether the line is as it was written."""
        return holds(self.data)

    def record(self) -> Record:
        """Raises `EdgeVLMError` with the place for a line that is no record, or of a newer edgevlm."""
        try:
            return decode(self.data)
        except TooNew as error:
            raise TooNew(f"{self.place}: {error}") from error
        except ValueError as error:
            raise EdgeVLMError(f"{self.place}: not a record: {error}") from error


def lines(file: Path) -> Iterator[Line]:
    """Every line of one file. Raises `EdgeVLMError` where it cannot be read."""
    try:
        with open_regular(file) as raw, os.fdopen(os.dup(raw.fileno()), "rb") as opened:
            at = 0
            while data := opened.readline(LONGEST):
                at += 1
                if data.endswith(b"\n") or len(data) == LONGEST or files.first_number(file) is not None:
                    yield Line(file, at, data)
    except FileNotFoundError:
        raise EdgeVLMError(f"no such records: {file}") from None
    except OSError as error:
        raise EdgeVLMError(f"cannot read {file}: {why(error)}") from error


def chains(path: Path) -> list[list[Path]]:
    """The files of each chain, oldest first: of the one that `path` is written to, or of all in the folder `path`.

    A closed file is taken alone. Raises `EdgeVLMError` where there are no records.
    """
    if path.is_dir():
        written = {files.active(file) for file in path.glob("*.jsonl") if not file.name.endswith(".marks.jsonl")}
        found = [files.chain(file) for file in sorted(written)]
        found = [chain for chain in found if any(_holds_records(file) for file in chain)]
        if not found:
            raise EdgeVLMError(f"there are no records in {path}")
        return found
    alone = files.first_number(path) is not None
    chain = [path] if alone else files.chain(path)
    if not chain:
        raise EdgeVLMError(f"no such records: {path}")
    return [chain]


def records(path: Path) -> Iterator[Record]:
    """Every record, chain by chain, oldest first. Raises `EdgeVLMError`, naming file and line of what is none."""
    for chain in chains(path):
        yield from records_of(chain)


def records_of(chain: Iterable[Path]) -> Iterator[Record]:
    """The records of these files, in their order. Raises `EdgeVLMError`."""
    for file in chain:
        for line in lines(file):
            yield line.record()


def _holds_records(file: Path) -> bool:
    for line in islice(lines(file), FEW):
        try:
            link(line.data)
        except TooNew:
            return True
        except ValueError:
            continue
        return True
    return False
