"""Triggers that count seconds and frames."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers import every, interval
from edgevlm_runtime.errors import EdgeVLMError

PIXELS = np.zeros((2, 2, 3), np.uint8)


def fired(trigger, frames):
    trigger.start()
    found = [sequence for sequence, at in frames if trigger.fire(Frame(sequence, 0.0, at, PIXELS)) is not None]
    trigger.close()
    return found


def test_an_interval_keeps_its_beat():
    frames = [(number, 100 + number / 25) for number in range(1, 101)]
    trigger = interval.make_trigger(interval.Options(seconds=1.0), Status())
    assert fired(trigger, frames) == [1, 26, 51, 76]


def test_one_late_frame_makes_no_other_late_and_none_is_made_up_for():
    times = [0.0, 1.3, 2.0, 2.9, 3.0, 7.5, 7.6, 8.0, 8.9]
    trigger = interval.make_trigger(interval.Options(seconds=1.0), Status())
    assert fired(trigger, enumerate(times)) == [0, 1, 2, 4, 5, 7]


def test_every_so_many_frames_by_their_numbers():
    trigger = every.make_trigger(every.Options(frames=10), Status())
    assert fired(trigger, [(number, 0.0) for number in (1, 2, 10, 11, 19, 25, 34, 35, 36, 60)]) == [1, 11, 25, 35, 60]
    assert fired(every.make_trigger(every.Options(), Status()), [(1, 0.0), (2, 0.0), (3, 0.0)]) == [1, 2, 3]


def test_firings_say_what_they_are():
    firing = interval.make_trigger(interval.Options(seconds=1), Status()).fire(Frame(1, 0.0, 5.0, PIXELS))
    assert (firing.kind, firing.text, firing.addressed) == ("interval", "", False)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_bad_seconds(seconds):
    with pytest.raises(EdgeVLMError, match="seconds"):
        interval.Options(seconds=seconds)


@pytest.mark.parametrize("frames", [0, 1.5, True])
def test_bad_frames(frames):
    with pytest.raises(EdgeVLMError, match="frames"):
        every.Options(frames=frames)
