"""Frames and records as a watch makes them, for those that receive them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.records.record import AnswerInfo, FrameInfo, Record
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.status import Status

VERDICTS = ("reject", "accept", "unsure")


def frame(sequence: int = 1) -> Frame:
    """A small picture."""
    pixels = np.random.default_rng(sequence).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Frame(sequence, time.time(), time.monotonic(), pixels)


def record(number: int = 1, verdict: str = "accept", status: str = "in time", text: str = "") -> Record:
    """One of a series."""
    answer = AnswerInfo(
        question="scratch",
        text="Is there a scratch?",
        verdict=verdict,
        answer="no",
        probability=0.875,
        probabilities={"yes": 0.125, "no": 0.875},
    )
    return Record(
        number=number,
        id=f"id-{number}-{verdict}",
        status=status,
        verdict=verdict,
        answers=(answer,),
        frame=FrameInfo(sequence=number, captured_at=1e9, sha256="0" * 64, width=32, height=24),
        trigger="interval",
        trigger_text=text,
        triggered_at=1e9,
        decided_at=1e9 + 1,
        latency_ms=123.5,
        bundle="b" * 64,
        plan="p" * 64,
        previous="0" * 64,
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
    )


def delivery(number: int = 1, verdict: str = "accept", status: str = "in time", text: str = "") -> Delivery:
    """A record with its frame."""
    return Delivery(record(number, verdict, status, text), frame(number))


def pending(sequence: int = 1, text: str = "") -> Pending:
    """A part that is being judged."""
    return Pending(frame(sequence), "mqtt", text)


def about(folder: Path, name: str = "line 1") -> About:
    """A watch with two verdicts beside "unsure", and a status of its own."""
    return About(name, VERDICTS, ("scratch",), folder, Status(), "1.2.3")


def condition(about: About, name: str) -> str:
    """Text of a condition; empty where there is none."""
    return next((one.text for one in about.status.snapshot().conditions if one.name == name), "")


def counter(about: About, name: str) -> int:
    """A counter's value."""
    return about.status.snapshot().counters.get(name, 0)
