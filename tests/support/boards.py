"""A board that tests fill by hand, as a watch would."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace

from PIL import Image

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.page.board import Watched
from edgevlm.watch.records.record import AnswerInfo, FrameInfo, Record
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError

WORDS = ("reject", "unsure", "accept")


def record(number: int, verdict: str = "accept", **more: object) -> Record:
    """A record of a 640 x 480 frame, as a judged one has it."""
    made = Record(
        number=number,
        id=f"test-{number}",
        status="in time",
        verdict=verdict,
        answers=(
            AnswerInfo(
                question="defect",
                text="Is there a defect?",
                verdict=verdict,
                answer="yes" if verdict == "reject" else "no",
                probability=0.97,
                probabilities={"yes": 0.03, "no": 0.97},
                milliseconds=20.0,
            ),
        ),
        frame=FrameInfo(sequence=number, captured_at=time.time(), sha256="ab" * 32, width=640, height=480),
        trigger="interval",
        trigger_text=f"part {number}",
        triggered_at=time.time(),
        decided_at=time.time(),
        latency_ms=100.0 + number,
        bundle="cd" * 32,
        plan="ef" * 32,
        previous="0" * 64,
    )
    return replace(made, **more)  # type: ignore[arg-type]


class HandBoard:
    """`edgevlm.watch.page.board.Board`, filled with `add`."""

    def __init__(self) -> None:
        self.about = Watched(
            name="line <1>",
            verdicts=WORDS,
            questions=("defect",),
            regions=(Region(name="plate", box=(0.25, 0.25, 0.75, 0.75)),),
            deadline_ms=500.0,
            bundle="cd" * 32,
            version="0.1.0",
            started_at=time.time(),
        )
        self.status = Status()
        self.ready = False
        self.marks: list[tuple[int, str, str]] = []
        self._records: list[Record] = []
        self._colour = (0, 0, 0)
        self._changes = 0
        self._changed = threading.Condition()

    @property
    def healthy(self) -> bool:
        return self.status.healthy

    def add(self, one: Record, colour: tuple[int, int, int]) -> None:
        """A verdict on a frame of one colour."""
        with self._changed:
            self._records.append(one)
            self._colour = colour
            self.ready = True
            self._changes += 1
            self._changed.notify_all()

    def latest(self) -> Record | None:
        return self._records[-1] if self._records else None

    def records(self, after: int = 0) -> tuple[Record, ...]:
        return tuple(one for one in self._records if one.number > after)

    def wait(self, after: int, timeout: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._changes > after, timeout)
            return self._changes

    def jpeg(self) -> bytes | None:
        if not self._records:
            return None
        buffer = io.BytesIO()
        Image.new("RGB", (640, 480), self._colour).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    def mark(self, number: int, right: str, note: str = "") -> None:
        if number not in {one.number for one in self._records}:
            raise EdgeVLMError(f"no record {number}")
        if right not in WORDS:
            raise EdgeVLMError(f"no verdict {right!r}: one of {', '.join(WORDS)}")
        self.marks.append((number, right, note))
