"""What the page shows: the last records, the last picture, and a way to wait for the next."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable

from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.page.board import Watched
from edgevlm.watch.records.record import Record
from edgevlm.watch.service.health import Health
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError

KEPT = 500
"""Records in memory, of a few kilobytes each."""
WIDEST = 1280
QUALITY = 85

KeepMark = Callable[[Record, str, str], None]
"""Keeps that a record's verdict should have been another, with a note. Raises `EdgeVLMError`."""


class Board:
    """A `page.board.Board`. Holds `KEPT` records, two frames and one JPEG. Safe to use from several threads."""

    def __init__(self, about: Watched, status: Status, health: Health, keep_mark: KeepMark) -> None:
        self._about, self._health, self._keep_mark = about, health, keep_mark
        self.status = status
        self._records: deque[Record] = deque(maxlen=KEPT)
        self._frame: Frame | None = None
        self._picture: tuple[Frame, bytes] | None = None
        self._changes = 0
        self._change = threading.Condition()
        self._drawing = threading.Lock()

    @property
    def about(self) -> Watched:
        """Names, regions, verdicts; another when a plan or a bundle was taken over."""
        return self._about

    @about.setter
    def about(self, about: Watched) -> None:
        self._about = about
        self._changed()

    @property
    def healthy(self) -> bool:
        """For /health."""
        return self._health.healthy

    @property
    def ready(self) -> bool:
        """For /ready."""
        return self._health.ready

    def latest(self) -> Record | None:
        """The newest record."""
        with self._change:
            return self._records[-1] if self._records else None

    def records(self, after: int = 0) -> tuple[Record, ...]:
        """Those with a number above `after`, oldest first."""
        with self._change:
            return tuple(record for record in self._records if record.number > after)

    def wait(self, after: int, timeout: float) -> int:
        """Wait for more than `after` changes; how many there have been."""
        with self._change:
            self._change.wait_for(lambda: self._changes > after, timeout)
            return self._changes

    def jpeg(self) -> bytes | None:
        """The frame, drawn when it is first asked for."""
        with self._drawing:
            frame = self._frame
            if frame is None:
                return None
            if self._picture is None or self._picture[0] is not frame:
                self._picture = (frame, _jpeg(frame))
            return self._picture[1]

    def mark(self, number: int, right: str, note: str = "") -> None:
        """Keep which verdict is right. Raises `EdgeVLMError` where there is no such record or verdict."""
        record = next((one for one in self.records() if one.number == number), None)
        if record is None:
            raise EdgeVLMError(f"no record {number} among the last {KEPT}")
        if right not in self._about.verdicts:
            raise EdgeVLMError(f"no such verdict: {right}: known are {', '.join(self._about.verdicts)}")
        self._keep_mark(record, right, note)
        self.status.count("marks")
        self._changed()

    def saw(self, frame: Frame) -> None:
        """A frame has come: shown until the first is judged."""
        self._health.seen.set()
        with self._change:
            shown = not self._records
        if shown:
            self._frame = frame
            self._changed()

    def show(self, record: Record, frame: Frame) -> None:
        """A verdict was given."""
        with self._change:
            self._records.append(record)
            self._frame = frame if frame.pixels.size else self._frame
        self._changed()

    def _changed(self) -> None:
        with self._change:
            self._changes += 1
            self._change.notify_all()


def _jpeg(frame: Frame) -> bytes:
    picture = Image.fromarray(frame.pixels)
    picture.thumbnail((WIDEST, WIDEST))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
