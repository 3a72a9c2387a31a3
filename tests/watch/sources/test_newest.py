"""What a taker gets of a reader that waits for nobody."""

from __future__ import annotations

import threading
import time

import pytest

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.reading import newest
from edgevlm.watch.sources.reading.newest import Newest


def take(place, data_s=10.0, item_s=10.0):
    return place.take(threading.Event(), data_s, item_s)


def read(place, item, waited=0.0):
    place.waiting()
    time.sleep(waited)
    place.working()
    place.put(item)


def test_each_replaces_the_one_before():
    place = Newest[int]()
    for item in range(5):
        read(place, item, newest.CAUGHT_UP_S)
    assert take(place) == 4
    assert place.replaced == 4


def test_what_was_waiting_in_a_row_is_not_given_before_its_end(monkeypatch):
    """A reader that finds one after the other without waiting is behind; the taker gets the last of them."""
    monkeypatch.setattr(newest, "CAUGHT_UP_S", 0.5)  # longer than a loaded machine keeps a thread from running
    monkeypatch.setattr(newest, "LONGEST_S", 60.0)
    place, row = Newest[int](), 40

    def fill():
        for item in range(row):
            read(place, item)
            time.sleep(0.001)  # decoding
        place.waiting()

    thread = threading.Thread(target=fill)
    thread.start()
    first = take(place)
    thread.join()
    assert first == row - 1


def test_a_reader_that_never_waits_is_heard_all_the_same(monkeypatch):
    monkeypatch.setattr(newest, "LONGEST_S", 0.05)
    place, stop = Newest[int](), threading.Event()

    def fill():
        item = 0
        while not stop.is_set():
            item += 1
            read(place, item)
            time.sleep(0.0005)

    thread = threading.Thread(target=fill)
    thread.start()
    found = [take(place), take(place)]
    stop.set()
    thread.join()
    assert 0 < found[0] < found[1]


def test_the_end_comes_after_what_is_there():
    place = Newest[int]()
    read(place, 1)
    place.end(SourceLost("gone"))
    assert take(place) == 1
    with pytest.raises(SourceLost, match="gone"):
        take(place)
    ended = Newest[int]()
    ended.end()
    assert take(ended) is None


def test_silence_and_data_without_a_picture_are_losses():
    place = Newest[int]()
    with pytest.raises(SourceLost, match=r"no data for 0\.1 s"):
        take(place, data_s=0.1)
    place.working()
    with pytest.raises(SourceLost, match=r"no whole picture for 0\.2 s"):
        take(place, item_s=0.2)


def test_stop_ends_the_wait():
    place, stop = Newest[int](), threading.Event()
    threading.Timer(0.1, stop.set).start()
    assert place.take(stop, 100, 100) is None
