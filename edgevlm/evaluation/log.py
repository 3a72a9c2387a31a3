"""Answers on disk while an evaluation runs: one JSON object a line, appended, so that a killed run can go on.

The first line says which evaluation it is; `{"done": true}` is the last. A line that was cut off in the middle is
dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from edgevlm.evaluation.answerers import Given
from edgevlm_runtime.errors import EdgeVLMError

Header = dict[str, Any]
DONE = b'{"done": true}\n'


class AnswerLog:
    """Stored answers by engine and case. With no path nothing is written."""

    def __init__(self, path: Path | None, header: Header, resume: bool = False) -> None:
        """Start a log, or go on with the one at `path` when `resume` is set.

        Raises `EdgeVLMError` when an unfinished one is there and `resume` is not set, and when the one to resume
        belongs to another evaluation.
        """
        self.answers: dict[str, dict[str, Given]] = {}
        self._file: IO[bytes] | None = None
        if path is None:
            return
        whole = _whole_lines(path)
        if resume and whole:
            self._read(path, whole, header)
        elif whole and whole[-1] != DONE:
            raise EdgeVLMError(
                f"an unfinished evaluation is there: {path}: continue it with --resume, or remove the file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open(path, whole if resume else [], header)

    def has(self, engine: str, case: str) -> bool:
        """Whether this answer is there."""
        return case in self.answers.get(engine, {})

    def add(self, engine: str, given: Given) -> None:
        """Keep an answer, on disk before this returns."""
        self.answers.setdefault(engine, {})[given.case] = given
        self._append(msgspec.json.encode({"engine": engine, **msgspec.to_builtins(given)}) + b"\n")

    def finish(self) -> None:
        """Every answer is there."""
        self._append(DONE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _append(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, path: Path, lines: list[bytes], header: Header) -> None:
        stored = _decode(lines[0], path)
        other = [name for name in header if stored.get(name) != header[name]]
        if other:
            raise EdgeVLMError(
                f"{path} belongs to another evaluation ({', '.join(other)} differ): "
                "choose another --out, or leave out --resume"
            )
        for line in lines[1:]:
            if line != DONE:
                record = _decode(line, path)
                given = msgspec.convert({k: v for k, v in record.items() if k != "engine"}, Given)
                self.answers.setdefault(record["engine"], {})[given.case] = given

    def _open(self, path: Path, kept: list[bytes], header: Header) -> IO[bytes]:
        lines = [line for line in kept if line != DONE] or [json.dumps(header).encode() + b"\n"]
        file = path.open("r+b") if path.exists() else path.open("w+b")
        file.writelines(lines)
        file.truncate()
        file.flush()
        return file


def _whole_lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []


def _decode(line: bytes, path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise EdgeVLMError(f"{path} holds no answers of an evaluation: {error}: choose another --out") from error
    return record
