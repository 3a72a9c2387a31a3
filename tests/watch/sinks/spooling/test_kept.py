"""What a kill kept from a spool is found again in the record file; nothing else is sent that was not to be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgevlm.watch.records.record import Record
from edgevlm.watch.sinks.messages import record_json
from edgevlm.watch.sinks.spooling.kept import SAVE_EVERY, Kept
from edgevlm.watch.sinks.spooling.missed import number_of
from edgevlm.watch.sinks.webhook import Options, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import booked, made_records


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def kept(file: Path | None, folder: Path, spool_mb: float = 1.0) -> Kept:
    about = replace(made_records.about(folder), records=file)
    return Kept("webhook", "http://host/", "target", spool_mb, about)


def killed(one: Kept) -> None:
    """The system takes back what a process held, and nothing else is done."""
    assert one.spool._held is not None
    os.close(one.spool._held)
    one.spool._held = None


def numbers(one: Kept) -> list[int]:
    """Of all that waits."""
    found, at = [], one.spool.next
    while (entry := one.spool.read(at)) is not None:
        at, found = entry[0] + 1, [*found, number_of(entry[1])]
    return found


def add(one: Kept, records: list[Record]) -> None:
    for record in records:
        one.add(record_json(record))


def test_a_kill_repeats_no_more_than_a_few(file: Path, tmp_path: Path) -> None:
    """Without a single `tick`, as in a process that lives shorter than a second."""
    booked.fill(file, 1)
    first = kept(file, tmp_path)
    add(first, booked.fill(file, 3 * SAVE_EVERY))
    for number in range(1, 2 * SAVE_EVERY + 6):
        first.acknowledge(number)
    killed(first)
    assert kept(file, tmp_path).spool.next == 2 * SAVE_EVERY + 1


def test_what_a_kill_kept_from_it_comes_first_and_once(file: Path, tmp_path: Path) -> None:
    records = booked.fill(file, 3)
    first = kept(file, tmp_path)
    assert numbers(first) == [], "a new peer gets no history"
    records += booked.fill(file, 5)
    add(first, records[3:5])
    killed(first)
    second = kept(file, tmp_path)
    assert numbers(second) == [4, 5, 6, 7, 8]
    assert second.spool.read(second.spool.next) == (1, record_json(records[3]))
    add(second, [*records[6:], *booked.fill(file, 1)])
    assert numbers(second) == [4, 5, 6, 7, 8, 9], "those that waited in memory are there already"


def test_it_is_known_where_entries_are_gone_because_the_peer_has_them(file: Path, tmp_path: Path) -> None:
    records = booked.fill(file, 4)
    one = kept(None, tmp_path)
    add(one, records[:3])
    for number in (1, 2, 3):
        one.spool.acknowledge(number)
    one.tick()
    killed(one)
    again = kept(file, tmp_path)
    assert numbers(again) == [4]
    again.close()
    assert numbers(kept(file, tmp_path)) == [4], "and not twice"


def test_killed_before_the_first_record_came(file: Path, tmp_path: Path) -> None:
    killed(kept(file, tmp_path))
    booked.fill(file, 2)
    assert numbers(kept(file, tmp_path)) == [1, 2]


def test_records_of_closed_files(file: Path, tmp_path: Path) -> None:
    killed(kept(file, tmp_path))
    booked.fill(file, 30, rotate_mb=0.02)
    assert len(list(tmp_path.glob("records.0*.jsonl"))) == 1
    assert numbers(kept(file, tmp_path)) == list(range(1, 31))


def test_numbers_that_begin_anew(file: Path, tmp_path: Path) -> None:
    one = kept(file, tmp_path)
    add(one, booked.fill(file, 5))
    one.close()
    file.unlink()
    records = booked.fill(file, 2)
    again = kept(file, tmp_path)
    add(again, records)
    assert numbers(again) == [1, 2, 3, 4, 5, 1, 2]
    booked.fill(file, 1)
    killed(again)
    assert numbers(kept(file, tmp_path))[-3:] == [1, 2, 3]


def test_records_that_cannot_be_read_hold_nothing_up(file: Path, tmp_path: Path) -> None:
    killed(kept(file, tmp_path))
    booked.fill(file, 3)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"?" * 40 + b"\n", lines[2]]))
    assert numbers(kept(file, tmp_path)) == [1, 3]


def test_a_sink_that_cannot_open_lets_go_of_its_spool(tmp_path: Path) -> None:
    """What is said stays the same however often it is tried."""
    sink = make_sink(Options(url="https://127.0.0.1:1/", ca=tmp_path / "none.pem"), made_records.about(tmp_path))
    for _ in range(2):
        with pytest.raises(EdgeVLMError, match=r"none\.pem"):
            sink.start()
