"""Answers on disk while an evaluation runs: one JSON object per line, appended, so that a killed run can go on.

The first line says which evaluation it is; `{"done": true}` is the last. A line that was cut off in the middle is
dropped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import msgspec

from edgevlm.evaluation.answerers import Given
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import decode_json, read_bytes, why

Header = dict[str, Any]
DONE = b'{"done": true}\n'


BEFORE: Header = {"engine": "ort"}
"""What every evaluation was whose first line does not say so: those of before it could be asked for."""
MOST_BYTES = 1 << 30
"""A log is read whole."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Engine:
    """Who gave a stored answer; the rest of its line is a `Given`."""

    engine: str


class AnswerLog:
    """Stored answers by engine and case. With no path nothing is written."""

    def __init__(self, path: Path | None, header: Header, resume: bool = False, anew: bool = False) -> None:
        """Start a log, or go on with the one at `path` when `resume` is set. `anew`: replace what is there.

        Raises `EdgeVLMError` when an unfinished one is there and neither is set, and when the file to go on with is
        another evaluation's, or no log at all: it is left as it is.
        """
        self.answers: dict[str, dict[str, Given]] = {}
        self._file: IO[bytes] | None = None
        if path is None:
            return
        whole, rest = _lines(path)
        if resume and whole:
            self._read(path, whole, header)
        elif resume and rest and not anew and not json.dumps(header).encode().startswith(rest):
            raise EdgeVLMError(f"{path} holds no answers of an evaluation: choose another --out")
        elif not (resume or anew) and whole and whole[-1] != DONE:
            raise EdgeVLMError(
                f"an unfinished evaluation is there: {path}: continue it with --resume, or replace it with --force"
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
        stored = {**BEFORE, **_decode(lines[0], dict[str, Any], path)}
        other = [name for name in header if stored.get(name) != header[name]]
        if other:
            raise EdgeVLMError(
                f"{path} belongs to another evaluation ({', '.join(other)} differ): "
                "choose another --out, or replace it with --force, without --resume"
            )
        for line in lines[1:]:
            if line != DONE:
                given = _decode(line, Given, path)
                self.answers.setdefault(_decode(line, _Engine, path).engine, {})[given.case] = given

    def _open(self, path: Path, kept: list[bytes], header: Header) -> IO[bytes]:
        lines = [line for line in kept if line != DONE] or [json.dumps(header).encode() + b"\n"]
        file = path.open("r+b") if path.exists() else path.open("w+b")
        file.writelines(lines)
        file.truncate()
        file.flush()
        return file


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """The whole lines, and what stands behind them: one that was cut off."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return [], b""
    except OSError as error:
        raise EdgeVLMError(f"cannot read {path}: {why(error)}: choose another --out") from error
    lines = data.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return whole, lines[-1] if len(whole) < len(lines) else b""


def _decode(line: bytes, kind: type[_T], path: Path) -> _T:
    return decode_json(line, kind, f"{path} holds no answers of an evaluation", remedy="choose another --out")
