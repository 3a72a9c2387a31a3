"""Where a chain goes on: its last whole record, after a kill, a power cut, or somebody's hand.

A line that was cut off is removed. A file that does not chain (altered, lines missing, damaged) is closed as it is, and
the next record begins a new chain: its number goes on, and its `previous` is the sha256 of that whole file, so that the
file cannot change again unseen.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from edgevlm.watch.records import files
from edgevlm.watch.records.chain import FIRST, LONGEST, TooNew, holds, link
from edgevlm.watch.records.writer import set_aside
from edgevlm_runtime.bundle.folder import file_sha256
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import open_regular

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a chain."""

    number: int = 0
    """Of the last record."""
    previous: str = FIRST
    """What the next record names as the one before."""
    first: int | None = None
    """The number of the first record in the file that is written to; None where there is none in it."""
    broken: str = ""
    """What is wrong with the file that was closed; empty where the chain goes on."""


@dataclass(slots=True)
class _Survey:
    """What is in one file."""

    first: int | None = None
    last: int = 0
    sha256: str = FIRST
    whole: int = 0
    """Bytes up to the end of the last whole line."""
    broken: str = ""
    foreign: int = 0
    """Lines that are no records."""


def find_tail(file: Path) -> Tail:
    """The end of the chain that is written to `file`; its writer alone may call this, for it mends the file.

    Raises `EdgeVLMError` for a file that holds something else or records of a newer edgevlm, and `OSError`.
    """
    older = files.closed_files(file)
    survey = _survey(file) if file.exists() else _Survey()
    if survey.foreign and survey.first is None:
        raise EdgeVLMError(f"{file} holds something else than records: choose another file")
    if file.exists() and survey.whole < file.stat().st_size:
        log.warning("%s: the last line was cut off, and is removed", file)
        os.truncate(file, survey.whole)
    if survey.first is None and older:  # it was just closed
        before = _survey(older[-1])
        number = max(before.last, *(files.first_number(path) or 0 for path in older))
        previous = file_sha256(older[-1]) if before.broken else before.sha256
        return Tail(number, previous, broken=before.broken)
    if survey.broken:
        kept = set_aside(file, survey.first or 0)
        return Tail(survey.last, file_sha256(kept), broken=f"{survey.broken}; it is kept as {kept.name}")
    return Tail(survey.last, survey.sha256, survey.first)


def _survey(file: Path) -> _Survey:
    """Read a whole file: does it chain? The largest number counts, lest one is given twice."""
    found = _Survey()
    with open_regular(file) as raw, os.fdopen(os.dup(raw.fileno()), "rb") as opened:
        at = 0
        while line := opened.readline(LONGEST):
            at += 1
            if not line.endswith(b"\n") and len(line) < LONGEST:
                break
            found.whole += len(line)
            _take(found, line, f"{file}, line {at}")
    return found


def _take(found: _Survey, line: bytes, place: str) -> None:
    try:
        record = link(line)
    except TooNew as error:
        raise TooNew(f"{place}: {error}, or choose another file") from error
    except ValueError:
        found.foreign += 1
        found.broken = found.broken or f"{place}: not a record"
        return
    if not holds(line):
        found.broken = found.broken or f"{place}: record {record.number} was altered"
    elif found.first is not None and (record.number, record.previous) != (found.last + 1, found.sha256):
        found.broken = found.broken or f"{place}: record {record.number} does not follow the one before it"
    found.first = record.number if found.first is None else found.first
    found.last, found.sha256 = max(found.last, record.number), record.sha256
