"""Frames, firings and books of records, for tests of what reads them."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.plan.plan import Records
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing

BUNDLE, PLAN = "b" * 64, "a" * 64


def frame(number: int = 1, name: str = "", size: tuple[int, int] = (8, 6)) -> Frame:
    """A small picture that no other number has."""
    width, height = size
    pixels = np.full((height, width, 3), number % 256, np.uint8)
    pixels[0, 0] = (number // 65536, number // 256 % 256, number % 256)
    return Frame(number, time.time(), time.monotonic(), pixels, name)


def answer(verdict: str = "ok", **more: object) -> AnswerInfo:
    """One answer to a question with two choices."""
    given = {"answer": "no", "probability": 0.75, "probabilities": {"yes": 0.25, "no": 0.75}, **more}
    return AnswerInfo(question="scratch", text="Is there a scratch?", verdict=verdict, **given)  # type: ignore[arg-type]


def book(file: Path | None, status: Status | None = None, **options: object) -> Book:
    """A book that is open."""
    wanted = Records(file=file, **options)  # type: ignore[arg-type]
    return Book(wanted, bundle=BUNDLE, plan=PLAN, status=status or Status())


def add(into: Book, number: int = 1, verdict: str = "ok", part: str = "") -> Record:
    """One record."""
    return into.add(frame(number), Firing("every", part or f"part {number}"), verdict, (answer(verdict),))


def fill(file: Path, count: int, **options: object) -> list[Record]:
    """A file with `count` further records."""
    with book(file, **options) as opened:
        return [add(opened, number) for number in range(1, count + 1)]


def write_until_killed(file: Path, told: Connection) -> None:
    """Add records; each number is told when its record is said to be on disk."""
    with book(file, rotate_mb=0.02) as opened:
        while True:
            told.send(add(opened, opened.number + 1).number)
