"""Parts that ask while the camera is away: the default at the deadline, without a frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgevlm.watch.plan.plan import Part
from edgevlm.watch.records.pictures import NotKept, find
from edgevlm.watch.records.record import FrameInfo
from edgevlm.watch.service.run import Summary, run
from edgevlm.watch.service.unseen import Unseen
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.sources.base import Picture
from edgevlm.watch.status import Status
from edgevlm.watch.triggers import TRIGGERS
from edgevlm.watch.triggers.waiting import MOST, Asked, Waiting
from edgevlm_runtime import VLM
from tests.support.polling import until
from tests.support.running import make_plan, problems, records
from tests.support.watching import AlwaysTrigger, frame

DEADLINE_MS = 200


class Away:
    """A camera that gives frames from `back` on, one more whenever it is looked at."""

    live = True

    def __init__(self) -> None:
        self.back = threading.Event()

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        while not self.back.wait(0.01):
            if stop.is_set():
                return
        while not stop.wait(0.05):
            yield Picture(frame(7, side=64).pixels)


class Hand(Asked):
    """A trigger that the test pulls."""

    def __init__(self) -> None:
        self._waiting = Waiting("hand", Status())

    def ask(self, text: str) -> None:
        assert self._waiting.put(text)

    def start(self) -> None: ...

    def close(self) -> None:
        self._waiting.close()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Away:
    made = Away()
    kind = SimpleNamespace(open_source=lambda options, status: made)
    monkeypatch.setitem(SOURCES.built_in, "test", kind)  # type: ignore[arg-type]
    return made


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    made = Hand()
    kind = SimpleNamespace(make_trigger=lambda options, status: made)
    monkeypatch.setitem(TRIGGERS.built_in, "test", kind)  # type: ignore[arg-type]
    return made


@pytest.fixture
def watched(tmp_path: Path, tiny: VLM, camera: Away, hand: Hand) -> Iterator[Any]:
    """A watch that runs; `stop` ends it, and `ended` is its summary by then."""
    keep = f'[[sink]]\nkind = "pictures"\nfolder = "{tmp_path / "kept"}"\nof = ["all"]\n'
    plan = make_plan(tmp_path, tiny.bundle.path, more=keep)
    part = Part(kind="test", options=None)
    plan = replace(plan, source=part, trigger=part, deadline=replace(plan.deadline, ms=DEADLINE_MS))
    stop, ended = threading.Event(), list[Summary]()
    running = threading.Thread(target=lambda: ended.append(run(plan, tiny, stop=stop)))
    running.start()

    def finish() -> Summary:
        stop.set()
        running.join(60)
        return ended[0]

    yield SimpleNamespace(finish=finish)
    finish()


def test_the_default_goes_out_at_the_deadline_and_a_later_frame_judges_others(
    tmp_path: Path, camera: Away, hand: Hand, watched: Any
) -> None:
    asked = time.time()
    for text in ("part 1", "part 2"):
        hand.ask(text)
    until(lambda: len(records(tmp_path)) == 2, "two defaults while there is no frame")
    assert not camera.back.is_set()
    for i, one in enumerate(records(tmp_path), start=1):
        assert (one.status, one.verdict, one.trigger_text) == ("default", "unsure", f"part {i}")
        assert one.frame == FrameInfo(sequence=0, captured_at=one.triggered_at, sha256="", width=0, height=0)
        assert one.latency_ms >= DEADLINE_MS
        assert one.decided_at >= asked
    camera.back.set()
    until(lambda: watched_frames(tmp_path, hand), "a part that is seen")
    summary = watched.finish()
    found = records(tmp_path)
    assert {one.trigger_text for one in found[:2]} == {"part 1", "part 2"}
    assert {one.trigger_text for one in found[2:]} == {"part 3"}, "the first two are not judged by a later frame"
    assert all(one.frame.sequence for one in found[2:])
    assert problems(tmp_path) == ()
    assert summary.undelivered == {}
    kept = find([tmp_path / "kept"])
    assert not kept.has(found[0].frame)
    assert kept.has(found[2].frame)
    with pytest.raises(NotKept, match="no picture of it was kept"):
        kept.frame(found[0])


def watched_frames(folder: Path, hand: Hand) -> bool:
    """Ask until a frame answers."""
    if len(records(folder)) == 2 and hand.oldest() is None:
        hand.ask("part 3")
    return any(one.frame.sequence for one in records(folder))


def test_who_still_waits_at_the_end_is_skipped(tmp_path: Path, hand: Hand, watched: Any) -> None:
    until((tmp_path / "records.jsonl").exists, "it has begun")
    hand.ask("part 1")
    assert watched.finish().judged == 0
    (one,) = records(tmp_path)
    assert (one.status in ("skipped", "default"), one.verdict, one.frame.sequence) == (True, "unsure", 0)


def test_which_are_due_and_when_to_look_again() -> None:
    hand, sent, skipped = Hand(), list[str](), list[str]()
    deadlines = [None, 1e7, 1e-6]

    def unseen(deadline: float | None) -> Unseen:
        default, skip = (lambda job: sent.append(job.firing.text)), (lambda job: skipped.append(job.firing.text))
        return Unseen(hand, lambda: deadline, default, skip)

    for i in range(MOST):
        hand.ask(str(i))
    for deadline, due in zip(deadlines, (0, 0, MOST), strict=True):
        assert unseen(deadline).look() >= 0
        assert len(sent) == due
    assert sent == [str(i) for i in range(MOST)]
    hand.ask("last")
    unseen(None).end()
    assert (skipped, hand.oldest()) == (["last"], None)


def test_a_trigger_that_nobody_pulls_has_none() -> None:
    unseen = Unseen(AlwaysTrigger(), lambda: 1.0, pytest.fail, pytest.fail)
    assert unseen.look() > 0
    unseen.end()
