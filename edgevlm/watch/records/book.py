"""The records of a running watch: numbered, chained, and on disk before anybody is told.

    with Book(plan.records, bundle=vlm.bundle.content_digest, plan=plan.digest, status=status) as book:
        record = book.add(frame, firing, judgement.verdict, judgement.answers)
        record = book.add(frame, firing, plan.deadline.default, status="default")
        record = book.add(frame, firing, judgement.verdict, judgement.answers, status="late", late_for=record.number)

Where the disk takes no more, judging goes on: lines wait in memory, `Status` has the condition "records", and each
further `add` or `flush` tries again. Of more than `MOST_WAITING` the oldest are lost, which their numbers show.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.records import files
from edgevlm.watch.records.chain import seal
from edgevlm.watch.records.record import AnswerInfo, FrameInfo, Record
from edgevlm.watch.records.tail import Tail, find_tail
from edgevlm.watch.records.writer import Writer
from edgevlm.watch.status import Status
from edgevlm_runtime.disk.locks import exclusive
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import why

log = logging.getLogger(__name__)

MOST_WAITING = 4096
"""Lines that wait in memory for a disk that takes none; about 10 MB."""
BATCH = 64 << 10
"""Bytes of waiting lines that are written at once."""
MB = 1_000_000
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Keeping(Protocol):
    """Where records go: `plan.Records`."""

    @property
    def file(self) -> Path | None: ...
    @property
    def rotate_mb(self) -> float: ...
    @property
    def keep_mb(self) -> float | None: ...


class Fired(Protocol):
    """Why a frame was judged: `triggers.base.Firing`."""

    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def at(self) -> float: ...


class Book:
    """Makes records and keeps them. Safe to use from several threads; one process writes a file."""

    def __init__(self, options: Keeping | None, *, bundle: str, plan: str, status: Status) -> None:
        """Go on with the file that is there. `bundle`, `plan`: digests that records carry. None keeps no records.

        Raises `EdgeVLMError` when another process writes this file, when it cannot be read or written (a full disk is
        no reason: judging begins, and records wait), and when it holds something else or records of a newer edgevlm.
        """
        self._bundle = bundle
        self._plan = plan
        self._status = status
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._held = ExitStack()
        self._lost = 0
        self._file = None if options is None else options.file
        self._writer: Writer | None = None
        tail = Tail()
        if options is not None and self._file is not None:
            tail = self._begin(self._file, options)
        self._number = tail.number
        self._previous = tail.previous

    def add(
        self,
        frame: Frame,
        firing: Fired,
        verdict: str,
        answers: tuple[AnswerInfo, ...] = (),
        *,
        status: str = "in time",
        late_for: int | None = None,
        dropped: int = 0,
    ) -> Record:
        """The record of a verdict, on disk when this returns, unless the disk takes nothing. Raises nothing."""
        width, height = frame.size
        seen = FrameInfo(
            sequence=frame.sequence,
            captured_at=frame.captured_at,
            sha256=frame.digest,
            width=width,
            height=height,
            name=frame.name,
        )
        with self._lock:
            record, line = seal(
                Record(
                    number=self._number + 1,
                    id=uuid.uuid4().hex,
                    status=status,
                    late_for=late_for,
                    verdict=verdict,
                    answers=answers,
                    frame=seen,
                    trigger=firing.kind,
                    trigger_text=firing.text,
                    triggered_at=firing.at,
                    decided_at=time.time(),
                    latency_ms=round((time.monotonic() - frame.captured) * 1e3, 3),
                    dropped=dropped,
                    bundle=self._bundle,
                    plan=self._plan,
                    previous=self._previous,
                )
            )
            self._number, self._previous = record.number, record.sha256
            if self._writer is not None:
                self._waiting.append((record.number, line))
                self._write()
        return record

    def use(self, *, bundle: str, plan: str) -> None:
        """Records from now on carry these digests: the bundle or the plan was exchanged."""
        with self._lock:
            self._bundle, self._plan = bundle, plan

    def flush(self) -> None:
        """Try again to write what waits; to be called now and then where no verdicts come. Raises nothing."""
        with self._lock:
            if self._waiting:
                self._write()

    @property
    def number(self) -> int:
        """Of the last record; 0 where there is none."""
        return self._number

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Write what waits, if that can be, and let another process write. May be called twice."""
        self.flush()
        with self._lock:
            if self._waiting:
                log.error("%d records could not be written to %s, and are lost", len(self._waiting), self._file)
                self._waiting.clear()
            if self._writer is not None:
                self._writer.close()
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _begin(self, file: Path, options: Keeping) -> Tail:
        """Lock the file, and find where its chain goes on."""
        keep = None if options.keep_mb is None else int(options.keep_mb * MB)
        self._writer = Writer(file, int(options.rotate_mb * MB), keep)
        try:
            self._unless_full(lambda: self._hold(file))
            tail = find_tail(file)
            self._unless_full(lambda: self._open(tail))
        except BlockingIOError as error:
            raise EdgeVLMError(f"another process writes records to {file}: stop it, or choose another file") from error
        except OSError as error:
            self._held.close()
            raise EdgeVLMError(f"cannot keep records in {file}: {why(error)}: choose another file") from error
        except BaseException:
            self._held.close()
            raise
        if tail.broken:
            text = f"{tail.broken}: record {tail.number + 1} begins a new chain"
            self._status.raise_condition("records chain", text)
        return tail

    def _hold(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not self._held.enter_context(exclusive(files.lock(file), "edgevlm watch")):
            log.warning("the file system has no locks: let no other process write to %s", file)

    def _open(self, tail: Tail) -> None:
        assert self._writer is not None
        self._writer.begin(tail.first or tail.number + 1)

    def _unless_full(self, step: Callable[[], None]) -> None:
        """A disk that is full is no reason not to begin."""
        try:
            step()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._say(error)

    def _write(self) -> None:
        """Everything that waits, as far as the disk takes it."""
        assert self._writer is not None
        try:
            while self._waiting:
                lines = self._batch()
                self._writer.append(b"".join(lines), self._waiting[0][0])
                for _ in lines:
                    self._waiting.popleft()
                self._status.count("records_written", len(lines))
        except OSError as error:
            self._say(error)
        else:
            self._status.clear_condition("records")
        self._status.measure("records_waiting", len(self._waiting))

    def _batch(self) -> list[bytes]:
        lines, size = list[bytes](), 0
        for _, line in self._waiting:
            size += len(line)
            if lines and size > BATCH:
                break
            lines.append(line)
        return lines

    def _say(self, error: OSError) -> None:
        """What the disk said, and which records are lost by it."""
        text = f"cannot write {self._file}: {why(error)}: records wait in memory"
        self._status.raise_condition("records", text, bad=True)
        while len(self._waiting) > MOST_WAITING:
            number, _ = self._waiting.popleft()
            self._status.count("records_lost")
            if not self._lost:
                self._lost = number
                text = f"records from number {number} on were lost while {self._file} could not be written"
                self._status.raise_condition("records lost", text)
