"""Records on disk until the other side has them, in order, within a bound: a network that is away loses nothing.

    spool = Spool(folder, max_bytes=64 << 20)
    number = spool.append(payload)                 # on the disk when this returns
    number, payload = spool.read(spool.next)       # the first that is not acknowledged
    spool.acknowledge(number)                      # in any order; `save` writes how far that is

Files that are only added to, NUMBER.spool, named after their first entry; a line is a checksum and the payload. A line
that was cut off by a crash is skipped. `position` says up to where everything is acknowledged; it is replaced in one
step, so that what a crash can do is to have entries sent again, never to lose one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path

from edgevlm.watch.sinks.spooling.lock import lock_folder
from edgevlm.watch.sinks.spooling.position import POSITION, read_number, write_number
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.reading import why
from edgevlm_runtime.saving import sync_folder

SEGMENTS = 16
SMALLEST_SEGMENT = 4096
SUFFIX = ".spool"
MOST_MISSING = 1 << 20
"""Numbers missing between two files that are passed over."""


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    """Number of its first line."""
    count: int = 0
    size: int = 0

    @property
    def end(self) -> int:
        """The number after its last line."""
        return self.first + self.count


class Spool:
    """Entries that wait. Safe to use from several threads; one process at a time has it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open it, or begin it. Raises `EdgeVLMError` when the folder cannot be used, or another process has it."""
        self.dropped = 0
        """Entries given up since it was opened, since more waited than `max_bytes`."""
        self._folder, self._max_bytes = folder, max_bytes
        self._segment_bytes = max(SMALLEST_SEGMENT, max_bytes // SEGMENTS)
        self._lock = threading.RLock()
        self._out: FileIO | None = None
        self._reader: tuple[Path, BufferedReader] | None = None
        self._reads = 0
        """The number of the reader's next line."""
        self._early: set[int] = set()
        """Acknowledged beyond the position."""
        self._held: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = lock_folder(folder)
            self._segments = [_scan(path) for path in sorted(folder.glob(f"*{SUFFIX}")) if path.stem.isdigit()]
            self._position = self._saved = read_number(folder, POSITION) or 0
            self._delete_acknowledged()
        except OSError as error:
            self._let_go()
            raise EdgeVLMError(f"cannot use the spool {folder}: {why(error)}") from error
        self._last = max([self._position, *(segment.end - 1 for segment in self._segments)])
        self._pass_gaps()

    @property
    def next(self) -> int:
        """The number of the first entry that is not acknowledged."""
        return self._position + 1

    @property
    def waiting(self) -> int:
        """How many are not acknowledged."""
        with self._lock:
            return self._last - self._position - len(self._early)

    @property
    def last(self) -> bytes | None:
        """The newest entry that is whole and still on the disk. Raises `EdgeVLMError`."""
        with self._lock:
            for segment in reversed(self._segments):
                for number in range(segment.end - 1, segment.first - 1, -1):
                    if (payload := self._line(segment, number)) is not None:
                        return payload
            return None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def append(self, payload: bytes) -> int:
        """Write an entry to the disk. Returns its number.

        Raises `EdgeVLMError` when the disk takes nothing; what is there already stays whole.
        """
        if b"\n" in payload:
            raise ValueError("an entry is one line")
        line = b"%08x %s\n" % (zlib.crc32(payload), payload)
        with self._lock:
            if len(line) > self._max_bytes:
                self.dropped += 1
                raise EdgeVLMError(f"a record of {len(line)} bytes is larger than its spool: raise spool_mb")
            try:
                self._write(self._room(len(line)), line)
            except OSError as error:
                self._end_segment()
                raise EdgeVLMError(f"cannot write to the spool {self._folder}: {reason(error)}") from error
            self._last += 1
            return self._last

    def read(self, number: int) -> tuple[int, bytes] | None:
        """The first whole entry from `number` on that is not acknowledged. Raises `EdgeVLMError`."""
        with self._lock:
            number = max(number, self.next)
            for segment in self._segments:
                while number < segment.end:
                    number = max(number, segment.first)
                    payload = self._line(segment, number)
                    if payload is not None and number not in self._early:
                        return number, payload
                    if payload is None:
                        self.acknowledge(number)  # damaged: nobody will ever have it
                    number += 1
            return None

    def acknowledge(self, number: int) -> None:
        """The other side has it."""
        with self._lock:
            if number > self._position:
                self._early.add(number)
            while self._position + 1 in self._early:
                self._position += 1
                self._early.discard(self._position)

    def save(self) -> None:
        """Write how far everything is acknowledged, and delete what nobody waits for. Raises `EdgeVLMError`."""
        with self._lock:
            if self._position == self._saved:
                return
            try:
                self._write_position()
                self._delete_acknowledged()
            except OSError as error:
                raise EdgeVLMError(f"cannot write to the spool {self._folder}: {reason(error)}") from error

    def close(self) -> None:
        """Save; may be called twice. Raises `EdgeVLMError`."""
        with self._lock:
            self._end_segment()
            self._end_reader()
            try:
                self.save()
            finally:
                self._let_go()

    def _write_position(self) -> None:
        try:
            write_number(self._folder, POSITION, self._position)
        except OSError:  # a full disk: what nobody waits for makes room, and its absence says as much as the number
            saved, self._saved = self._saved, self._position
            self._delete_acknowledged()
            self._saved = saved
            write_number(self._folder, POSITION, self._position)
        self._saved = self._position

    def _pass_gaps(self) -> None:
        """Nobody waits for numbers that are in no file: the position was lost, or somebody deleted a file."""
        for before, segment in zip([None, *self._segments], self._segments, strict=False):
            if before is None:
                self._position = max(self._position, segment.first - 1)
            elif segment.first - before.end > MOST_MISSING:
                raise EdgeVLMError(f"the spool {self._folder} is damaged at {segment.path.name}: move it away")
            else:
                self._early.update(range(max(self.next, before.end), segment.first))

    def _room(self, length: int) -> _Segment:
        """The segment that is written to, after as many of the oldest were dropped as there is no room for."""
        while self._segments and self.size + length > self._max_bytes:
            oldest = self._segments[0]
            if len(self._segments) == 1:
                self._end_segment()
            lost = sum(n not in self._early for n in range(max(self.next, oldest.first), oldest.end))
            self.dropped += lost
            for number in range(self.next, oldest.end):
                self.acknowledge(number)
            self._delete(oldest)
        if self._out is None or self._segments[-1].size + length > self._segment_bytes:
            self._begin_segment()
        return self._segments[-1]

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self._folder / f"{self._last + 1:020d}{SUFFIX}"
        self._out = FileIO(path, "wb")  # a file of this name has no whole line
        self._segments = [segment for segment in self._segments if segment.path != path]
        self._segments.append(_Segment(path, self._last + 1))
        sync_folder(self._folder)

    def _write(self, segment: _Segment, line: bytes) -> None:
        assert self._out is not None
        try:
            written = 0
            while written < len(line):
                written += self._out.write(line[written:]) or 0
            os.fsync(self._out.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._out.truncate(segment.size)
            raise
        segment.count += 1
        segment.size += len(line)

    def _end_segment(self) -> None:
        if self._out is not None:
            with contextlib.suppress(OSError):
                self._out.close()
        self._out = None

    def _line(self, segment: _Segment, number: int) -> bytes | None:
        """A line's payload; None for a damaged one."""
        try:
            if self._reader is None or self._reader[0] != segment.path or self._reads > number:
                self._end_reader()
                self._reader, self._reads = (segment.path, segment.path.open("rb")), segment.first
            while self._reads < number:
                self._reader[1].readline()
                self._reads += 1
            self._reads += 1
            return _payload(self._reader[1].readline())
        except OSError as error:
            self._end_reader()
            raise EdgeVLMError(f"cannot read the spool {self._folder}: {reason(error)}") from error

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
        self._reader = None

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
        self._held = None

    def _delete_acknowledged(self) -> None:
        writes = self._segments[-1] if self._out is not None else None
        for segment in [one for one in self._segments if one.end <= self._saved + 1 and one is not writes]:
            self._delete(segment)

    def _delete(self, segment: _Segment) -> None:
        if self._reader is not None and self._reader[0] == segment.path:
            self._end_reader()
        segment.path.unlink(missing_ok=True)
        self._segments.remove(segment)


def _scan(path: Path) -> _Segment:
    segment = _Segment(path, int(path.stem))
    with path.open("rb") as file:
        for line in file:
            segment.size += len(line)
            segment.count += line.endswith(b"\n")
    return segment


def _payload(line: bytes) -> bytes | None:
    """What a line holds; None when it is cut off or damaged."""
    checksum, payload = line[:8], line[9:-1]
    try:
        sound = line.endswith(b"\n") and line[8:9] == b" " and int(checksum, 16) == zlib.crc32(payload)
    except ValueError:
        return None
    return payload if sound else None
