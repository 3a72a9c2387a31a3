"""The shipped model on a camera that is faster than it, and on files."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.plan.plan import Part
from edgevlm.watch.records.book import Book
from edgevlm.watch.service.run import run
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.sources.base import Picture
from edgevlm_export import inspection
from edgevlm_export.inspection.questions import defective
from edgevlm_runtime import VLM
from tests.support.running import make_plan, problems, records
from tests.support.watching import frame

INTERVAL_S = 0.001
FRAMES = 25


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [np.asarray(example.image.convert("RGB")) for example in inspection.examples("test", 16)]


class Camera:
    """Pictures pass by, whoever looks."""

    live = True

    def __init__(self, shown: list[np.ndarray]) -> None:
        self._shown = shown
        self.captured: list[float] = []

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        for pixels in cycle(self._shown):
            picture = Picture(pixels.copy())
            self.captured.append(picture.captured)
            yield picture
            if stop.wait(INTERVAL_S):
                return


def timed(function: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    """`function`, and how long it takes each time."""

    def call(*given: Any, **named: Any) -> Any:
        start = time.monotonic()
        try:
            return function(*given, **named)
        finally:
            into.append(time.monotonic() - start)

    return call


def test_no_answered_frame_is_older_than_one_frame_and_one_inference(
    tmp_path: Path, inspector: VLM, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, spent, written = Camera(pictures), list[float](), list[float]()
    kind = SimpleNamespace(open_source=lambda options, status: camera)
    monkeypatch.setitem(SOURCES.built_in, "test", kind)  # type: ignore[arg-type]
    judge = Judge.judge
    monkeypatch.setattr(Judge, "judge", timed(judge, spent))
    monkeypatch.setattr(Book, "add", timed(Book.add, written))
    plan = make_plan(tmp_path, inspector.bundle.path, top=f"max_frames = {FRAMES}")
    plan = replace(plan, source=Part(kind="test", options=None))
    summary = run(plan, inspector)
    found = records(tmp_path)
    assert (summary.ended, summary.judged, len(found)) == ("frames", FRAMES, FRAMES)
    assert summary.dropped > FRAMES, "the camera is faster than the model"
    interval = max(after - before for before, after in pairwise(camera.captured))
    turns = interval  # threads that take turns do so between two frames as well
    oldest = (interval + max(spent) + max(written) + turns) * 1e3
    assert [one.latency_ms for one in found if one.latency_ms > oldest] == []
    assert problems(tmp_path) == ()
    with Judge(inspector, plan) as again:
        for one in found:
            shown = pictures[(one.frame.sequence - 1) % len(pictures)]
            expected = judge(again, replace(frame(), pixels=shown))
            assert one.verdict == expected.verdict, f"frame {one.frame.sequence}"
            assert one.frame.sha256 == replace(frame(), pixels=shown).digest


def test_files_have_the_verdicts_that_they_are_labelled_with(tmp_path: Path, inspector: VLM) -> None:
    cases = list(inspection.examples("test", 24))
    plan = make_plan(tmp_path, inspector.bundle.path, pictures=0)
    for i, case in enumerate(cases):
        case.image.save(tmp_path / f"part-{i:02d}.png")
    question = replace(plan.questions[0], text="Is the part defective?")
    assert run(replace(plan, questions=(question,)), inspector).judged == len(cases)
    answers = [defective(case.part) for case in cases]
    right = [one.verdict == answer for one, answer in zip(records(tmp_path), answers, strict=True)]
    assert set(answers) == {"yes", "no"}
    assert sum(right) >= 0.9 * len(cases)
