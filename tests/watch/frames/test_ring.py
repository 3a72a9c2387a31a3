"""Seconds and bytes bound what is kept."""

from __future__ import annotations

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.ring import Ring


def frame(number: int, at: float, side: int = 10) -> Frame:
    return Frame(number, 1e9 + at, at, np.full((side, side, 3), number % 256, np.uint8))


def test_the_seconds_before_a_frame_oldest_first():
    ring = Ring(2.0)
    for number in range(1, 101):
        ring.add(frame(number, number / 10))
    last = frame(100, 10.0)
    assert [one.sequence for one in ring.before(last)] == list(range(80, 100))
    assert [one.sequence for one in ring.before(frame(101, 11.5))] == list(range(95, 101))


def test_bytes_bound_it_too():
    ring = Ring(1000.0, most_bytes=5 * 300)
    for number in range(1, 50):
        ring.add(frame(number, number))
        assert ring.held_bytes <= 5 * 300
    assert [one.sequence for one in ring.before(frame(50, 50))] == [45, 46, 47, 48, 49]
    ring.add(frame(51, 51, side=100))
    assert ring.held_bytes == 0
    assert ring.before(frame(52, 52)) == ()


def test_no_seconds_keep_nothing():
    ring = Ring(0)
    ring.add(frame(1, 1))
    assert ring.before(frame(2, 1)) == ()
