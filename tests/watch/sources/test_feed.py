"""What the feed does with a source that behaves as it is told to."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edgevlm.watch.sources.base import Picture, SourceLost
from edgevlm.watch.sources.feed import Feed, Pauses
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.feeds import running


class Scripted:
    """Each opening takes the next line of the script: so many pictures, then an error, or the end."""

    def __init__(self, *script, live=True):
        self.script, self.live, self.opened = list(script), live, 0

    def pictures(self, stop):
        count, error = self.script[min(self.opened, len(self.script) - 1)]
        self.opened += 1
        for _ in range(count):
            yield Picture(np.zeros((4, 6, 3), np.uint8), "name")
        if error is not None:
            raise error


def frames_of(source, at_start="retry", status=None):
    feed = Feed(source, status or Status(), at_start, Pauses(first_s=0.001, most_s=0.002))
    return list(feed.frames(threading.Event()))


def test_numbers_go_on_after_a_loss_and_the_end_is_the_end():
    status = Status()
    lost = SourceLost("gone")
    found = frames_of(Scripted((2, lost), (0, lost), (0, lost), (3, None)), status=status)
    assert [frame.sequence for frame in found] == [1, 2, 3, 4, 5]
    assert {frame.name for frame in found} == {"name"}
    assert not any(frame.pixels.flags.writeable for frame in found)
    assert status.snapshot().counters == {"frames": 5, "source_losses": 3}
    assert status.healthy


def test_the_condition_lasts_while_it_is_lost():
    status, seen = Status(), []

    class Watched(Scripted):
        def pictures(self, stop):
            seen.append([(one.name, one.text, one.bad) for one in status.snapshot().conditions])
            return super().pictures(stop)

    frames_of(Watched((1, SourceLost("gone")), (0, SourceLost("still gone")), (1, None)), status=status)
    assert seen == [[], [("source", "gone", True)], [("source", "still gone", True)]]
    assert status.snapshot().conditions == ()


def test_at_start_it_fails_or_tries_again():
    lost = SourceLost("unreachable")
    with pytest.raises(SourceLost, match="unreachable"):
        frames_of(Scripted((0, lost), (1, None)), at_start="fail")
    assert len(frames_of(Scripted((0, lost), (1, None)))) == 1
    assert len(frames_of(Scripted((1, lost), (1, None)), at_start="fail")) == 2
    with pytest.raises(EdgeVLMError, match=r'at_start.*"retry" or "fail"'):
        Feed(Scripted((0, None)), Status(), "sometimes")


def test_what_cannot_be_mended_ends_it_unless_a_camera_worked_before():
    wrong = EdgeVLMError("wrong password")
    with pytest.raises(EdgeVLMError, match="wrong password"):
        frames_of(Scripted((0, wrong), (1, None)))
    assert len(frames_of(Scripted((1, wrong), (1, None)))) == 2
    with pytest.raises(EdgeVLMError, match="wrong password"):
        frames_of(Scripted((1, wrong), (1, None), live=False))


def test_a_librarys_own_error_does_not_end_it():
    status = Status()
    assert len(frames_of(Scripted((1, ZeroDivisionError("by\nzero")), (1, None)), status=status)) == 2
    assert status.snapshot().counters["source_losses"] == 1


def test_pauses_grow_to_a_bound_with_chance_in_them():
    pauses = Pauses()
    for losses, full in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (1000, 30.0)):
        drawn = [pauses.after(losses) for _ in range(200)]
        assert full / 2 <= min(drawn) < full * 0.6
        assert full * 0.9 < max(drawn) <= full


def test_it_stops_in_the_middle_of_a_pause():
    with running(Scripted((0, SourceLost("gone"))), Status()) as feed:
        feed.until(lambda: feed.counted("source_losses") > 2)
    assert feed.ended.is_set()
    assert feed.error is None
