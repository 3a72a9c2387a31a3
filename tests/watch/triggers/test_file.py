"""Notes that another program leaves."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.file import Options, make_trigger
from edgevlm.watch.triggers.waiting import LONGEST_TEXT, MOST
from edgevlm_runtime.errors import EdgeVLMError

FRAME = Frame(1, 0.0, 0.0, np.zeros((2, 2, 3), np.uint8))


@pytest.fixture
def started(tmp_path):
    made = []

    def start(name="go.txt", status=None, **options):
        trigger = make_trigger(Options(path=tmp_path / name, **options), status or Status())
        trigger.start()
        made.append(trigger)
        return trigger

    yield start
    for trigger in made:
        trigger.close()
        trigger.close()


def next_firing(trigger):
    ends = time.monotonic() + 30
    while (firing := trigger.fire(FRAME)) is None:
        assert time.monotonic() < ends, "it does not fire"
        time.sleep(0.005)
    return firing


def quiet(trigger):
    time.sleep(0.3)
    return trigger.fire(FRAME) is None


def test_one_that_appears_changes_and_appears_again(tmp_path, started):
    trigger, note = started(), tmp_path / "go.txt"
    assert quiet(trigger)
    note.write_text(" part 48112\r\n")
    before = time.monotonic()
    firing = next_firing(trigger)
    assert (firing.kind, firing.text, firing.addressed) == ("file", "part 48112", True)
    assert before - 30 < firing.fired <= time.monotonic()
    assert quiet(trigger)
    note.write_text("part 48113")
    assert next_firing(trigger).text == "part 48113"
    note.unlink()
    assert quiet(trigger)
    note.write_text("part 48113")
    assert next_firing(trigger).text == "part 48113"


def test_one_that_was_there_before_does_not_fire(tmp_path, started):
    (tmp_path / "go.txt").write_text("old")
    trigger = started()
    assert quiet(trigger)
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(tmp_path / "go.txt")
    assert next_firing(trigger).text == "new"


def test_it_is_read_when_it_is_complete(tmp_path, started):
    trigger = started(settle_s=0.5)
    with (tmp_path / "go.txt").open("w") as file:
        for word in ("part", " 48", "112"):
            file.write(word)
            file.flush()
            time.sleep(0.1)
    assert next_firing(trigger).text == "part 48112"
    assert quiet(trigger)


def test_an_empty_one_and_one_of_no_text(tmp_path, started):
    trigger, note = started(), tmp_path / "go.txt"
    note.touch()
    assert next_firing(trigger).text == ""
    note.write_bytes(b"\xff\x00\xfe ok" + b"x" * 100_000)
    text = next_firing(trigger).text
    assert text.isprintable()
    assert len(text) == LONGEST_TEXT
    assert "okx" in text


def test_every_note_gets_its_frame_though_frames_are_slow(tmp_path, started):
    trigger = started(settle_s=0.1, look_s=0.005)
    for number in range(5):
        (tmp_path / "go.txt").write_text(f"part {number}")
        time.sleep(0.6)
    assert [next_firing(trigger).text for _ in range(5)] == [f"part {number}" for number in range(5)]


def test_notes_that_nobody_takes_are_bounded_and_counted(tmp_path, started):
    status = Status()
    trigger = started(status=status, settle_s=0.0, look_s=0.0005)
    number, ends = 0, time.monotonic() + 60
    while status.snapshot().counters.get("trigger_file_dropped", 0) < 5:
        assert time.monotonic() < ends
        number += 1
        (tmp_path / "go.txt").write_text(f"part {number}")
        time.sleep(0.002)
    assert [one.name for one in status.snapshot().conditions] == ["trigger file queue"]
    trigger.close()
    assert trigger.fire(FRAME) is None
    counters = status.snapshot().counters
    assert counters["trigger_file_fired"] == MOST
    assert counters["trigger_file_dropped"] >= 5 + MOST, "those that waited at the end are counted too"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(EdgeVLMError, match="no such folder"):
        make_trigger(Options(path=tmp_path / "none" / "go.txt"), Status()).start()
    for options in ({"settle_s": -1}, {"look_s": 0}):
        with pytest.raises(EdgeVLMError, match=next(iter(options))):
            Options(path=tmp_path / "go.txt", **options)
