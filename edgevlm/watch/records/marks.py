"""What people say of records: right, or wrong and what would have been right. An evaluation set grows of it.

    Marks(files.marks(file)).add(about(record, "accept", note="dust, not a scratch", who="page"))
    found = read_marks(files.marks(file))         # by the record's id; of several marks of a record the last counts

One line of JSON a mark, beside the records, which are never changed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from edgevlm.watch.records.record import Record
from edgevlm_runtime.disk.locks import exclusive
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.options import need
from edgevlm_runtime.reading import known, read_bytes, why

RIGHT, WRONG = "right", "wrong"
MOST_BYTES = 256 << 20
PATIENCE_S = 5.0
"""How long another process may take over its own mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One judgement of a person on one record. Raises `EdgeVLMError` for a mark that is neither right nor wrong."""

    number: int
    """The record's."""
    id: str
    """The record's: numbers of two chains may be equal."""
    mark: str
    """"right" or "wrong"."""
    verdict: str = ""
    """For "wrong": the verdict that would have been right, where somebody said so."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """The right answers, by the question's name, where somebody gave them."""
    note: str = ""
    at: float = field(default_factory=time.time)
    """Unix time in seconds."""
    who: str = ""

    def __post_init__(self) -> None:
        need(self.mark in (RIGHT, WRONG), "mark", self.mark, f'"{RIGHT}" or "{WRONG}"')


def about(record: Record, verdict: str, *, note: str = "", who: str = "") -> Mark:
    """The mark that says which verdict is right for `record`: its own, or another."""
    if verdict == record.verdict:
        return Mark(number=record.number, id=record.id, mark=RIGHT, note=note, who=who)
    return Mark(number=record.number, id=record.id, mark=WRONG, verdict=verdict, note=note, who=who)


class Marks:
    """Appends marks to a file. Safe to use from several threads and processes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def add(self, mark: Mark) -> None:
        """Keep a mark, on disk when this returns. Raises `EdgeVLMError`, and leaves the file as it was."""
        line = json.dumps(asdict(mark), separators=(",", ":")).encode("ascii") + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            raise EdgeVLMError(f"the mark cannot be kept in {self._file}: {why(error)}") from error

    def _append(self, line: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with exclusive(self._file.with_name(f"{self._file.name}.lock"), "mark"):
                    _append(self._file, line)
                    return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


def read_marks(file: Path) -> dict[str, Mark]:
    """The last mark of each record, by the record's id; none where there is no file.

    A last line that was cut off is left out. Raises `EdgeVLMError`, naming file and line, for one that is no mark.
    """
    try:
        data = read_bytes(file, MOST_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EdgeVLMError(f"cannot read {file}: {why(error)}") from error
    found: dict[str, Mark] = {}
    for at, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            mark = msgspec.convert(json.loads(line), known(Mark))
        except (msgspec.MsgspecError, ValueError, RecursionError, EdgeVLMError) as error:
            raise EdgeVLMError(f"{file}, line {at}: not a mark: {one_line(error)}") from error
        found[mark.id] = mark
    return found


def _append(file: Path, line: bytes) -> None:
    """Whole or not at all; what was cut off before goes."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(handle, "r+b", buffering=0) as opened:
        data = opened.readall()
        whole = data.rfind(b"\n") + 1
        opened.seek(whole)
        try:
            left = memoryview(line)
            while left:
                left = left[opened.write(left) or 0 :]
            opened.truncate()
            os.fsync(opened.fileno())
        except OSError:
            os.truncate(file, whole)
            raise
