"""What the page is given."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.page.board import Board as PageBoard
from edgevlm.watch.service.board import KEPT
from edgevlm.watch.service.health import Health
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.watching import board, delivery, frame


def pixels(jpeg: bytes | None) -> np.ndarray:
    assert jpeg is not None
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_the_newest_frame_is_shown_until_one_is_judged():
    status = Status()
    health = Health(status)
    shown: PageBoard = board(status, health)
    assert (shown.jpeg(), shown.latest(), shown.wait(0, 0)) == (None, None, 0)
    shown.saw(frame(10))
    shown.saw(frame(20))
    assert health.seen.is_set()
    assert abs(int(pixels(shown.jpeg()).mean()) - 20) <= 1
    judged = delivery(90)
    shown.show(judged.record, judged.frame)
    shown.saw(frame(30))
    assert abs(int(pixels(shown.jpeg()).mean()) - 90) <= 1
    assert shown.latest() == judged.record


def test_a_picture_is_drawn_once_and_not_too_large(monkeypatch):
    shown = board(Status())
    shown.saw(frame(1, side=2000))
    first = shown.jpeg()
    assert pixels(first).shape == (1280, 1280, 3)
    assert shown.jpeg() is first


def test_records_are_bounded():
    shown, made = board(Status()), delivery(1)
    for _ in range(KEPT + 10):
        shown.show(made.record, made.frame)
    assert len(shown.records()) == KEPT
    assert shown.records(after=1) == ()


def test_waiting_for_the_next_change():
    shown, made = board(Status()), delivery(1)
    seen = shown.wait(-1, 0)
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(shown.wait(seen, 60)))
    waiting.start()
    shown.show(made.record, made.frame)
    waiting.join(60)
    assert found == [seen + 1]
    assert shown.wait(seen + 1, 0.01) == seen + 1


def test_marks():
    kept: list[tuple[object, ...]] = []
    made = delivery(1)
    shown = board(Status(), keep=lambda *mark: kept.append(mark))
    shown.show(made.record, made.frame)
    shown.mark(1, "reject", "a scratch")
    assert kept == [(made.record, "reject", "a scratch")]
    with pytest.raises(EdgeVLMError, match="no record 7"):
        shown.mark(7, "reject")
    with pytest.raises(EdgeVLMError, match=r"no such verdict: bad: known are reject, accept, unsure"):
        shown.mark(1, "bad")
    assert len(kept) == 1
