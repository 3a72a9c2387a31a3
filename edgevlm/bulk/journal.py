"""Results on disk while the work goes on: a file of JSON Lines beside the output, appended in the order of answering.

The first line says which work it is, and every other is a result. Each is given to the operating system at once, so
that a killed process loses none, and is on the disk within a second. A line that was cut off is dropped, and its
question asked again; so are questions that had an error.

In memory there are a few dozen bytes for each result: where it is in the file, and a digest of row and question.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from edgevlm.bulk.rows import Ask, Result, encode, failed
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import open_regular, why

SYNC_S = 1.0
LONGEST_LINE = 256 << 20
_NOWHERE = -1

Header = dict[str, Any]


class Journal:
    """The results so far. Use it in a `with` block; safe to use from several threads."""

    def __init__(self, path: Path, header: Header, resume: bool = False) -> None:
        """Begin, or go on with what is at `path` when `resume` is set. Raises `EdgeVLMError` for other work's."""
        self._lock = threading.Lock()
        self._known: dict[bytes, int] = {}
        self._met: set[bytes] = set()
        self._slots = array("q")
        self._synced = time.monotonic()
        self.taken = 0
        """Results that were there."""
        self.done = 0
        """Results of this input, those that were there included."""
        self.errors = 0
        """Of these, errors."""
        there = resume and path.exists() and path.stat().st_size > 0
        end = self._read(path, header) if there else 0
        try:
            self._file: IO[bytes] = path.open("r+b" if end else "w+b")
            self._file.truncate(end)
            self._file.seek(end)
            self._end = end
            if not end:
                self._append(encode(header))
        except OSError as error:
            raise EdgeVLMError(f"cannot write {path}: {why(error)}") from error

    def pending(self, asks: Sequence[Ask], error: str | None = None) -> list[Ask]:
        """Those of a row that are still to be asked. A row with an `error`, or met before, gets its result here."""
        left = []
        for ask in asks:
            key = _key(ask.id, ask.question)
            again = key in self._met
            self._met.add(key)
            wrong = error or ("no question" if not ask.question else "this id and question were there before")
            if error is not None or again or not ask.question:
                self.add(failed(ask, wrong))
            elif key in self._known:
                with self._lock:
                    self._place(ask.slot, self._known[key])
                    self.taken += 1
            else:
                left.append(ask)
        return left

    def add(self, result: Result) -> None:
        """Keep a result; one for a place that has one already is dropped. Raises `EdgeVLMError`."""
        with self._lock:
            if result.slot < len(self._slots) and self._slots[result.slot] != _NOWHERE:
                return
            try:
                offset = self._append(encode(result))
            except OSError as error:
                raise EdgeVLMError(f"cannot keep results: {why(error)}: make room, and go on with --resume") from error
            self._place(result.slot, offset)
            self.errors += result.error is not None

    def results(self) -> Iterator[Result]:
        """Every result of the input, in its order."""
        self._sync()
        for offset in self._slots:
            if offset != _NOWHERE:
                self._file.seek(offset)
                yield msgspec.json.decode(self._file.readline(), type=Result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._sync()
        self._file.close()

    def _place(self, slot: int, offset: int) -> None:
        if slot >= len(self._slots):
            self._slots.extend([_NOWHERE] * (slot + 1 - len(self._slots)))
        self._slots[slot] = offset
        self.done += 1

    def _append(self, line: bytes) -> int:
        offset = self._end
        self._file.write(line)
        self._file.flush()
        self._end += len(line)
        if time.monotonic() - self._synced > SYNC_S:
            self._sync()
        return offset

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _read(self, path: Path, header: Header) -> int:
        """Remember where results are; returns where the last whole line ends."""
        try:
            with open_regular(path) as raw, open(raw.fileno(), "rb", closefd=False) as file:
                first = file.readline(LONGEST_LINE)
                if not first.endswith(b"\n") and encode(header).startswith(first):
                    return 0  # killed in its first line
                _check(first, header, path)
                end = len(first)
                while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
                    self._remember(line, end)
                    end += len(line)
        except OSError as error:
            raise EdgeVLMError(f"cannot read {path}: {why(error)}: choose another output") from error
        return end

    def _remember(self, line: bytes, offset: int) -> None:
        try:
            result = msgspec.json.decode(line, type=Result)
        except (ValueError, RecursionError):  # damaged, as by a disk that lost power: asked again
            return
        if result.error is None:
            self._known[_key(result.id, result.question)] = offset


def _check(line: bytes, header: Header, path: Path) -> None:
    """Raises `EdgeVLMError` unless this is the first line of the same work."""
    try:
        stored = msgspec.json.decode(line, type=Header)
    except (ValueError, RecursionError) as error:
        raise EdgeVLMError(f"{path} holds no results of edgevlm map: choose another output") from error
    mine: Header = msgspec.to_builtins(header)
    other = [name for name in mine if stored.get(name) != mine[name]]
    if other:
        raise EdgeVLMError(
            f"{path} belongs to other work ({', '.join(other)} differ): "
            "choose another output, or replace it with --force, without --resume"
        )


def _key(identity: str, question: str) -> bytes:
    return hashlib.blake2b(f"{len(identity)} {identity}{question}".encode(), digest_size=16).digest()
