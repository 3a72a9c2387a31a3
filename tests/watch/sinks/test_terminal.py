"""One line for every verdict on standard output; or the record as it is in its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sinks.base import About, Delivery
from edgevlm.watch.sinks.terminal import Options, make_sink
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from tests.support.booked import answer, book, frame


def about(folder: Path) -> About:
    return About("line-1", ("reject", "unsure", "ok"), ("scratch",), folder, Status())


def delivery(**more: object) -> Delivery:
    part = str(more.pop("part", "part 48112"))
    name = str(more.pop("name", ""))
    verdict = str(more.pop("verdict", "reject"))
    answers = () if "status" in more else (answer(verdict, probability=0.934),)
    with book(None) as opened:
        seen = frame(3, name)
        record = opened.add(seen, Firing("mqtt", part), verdict, answers, **more)  # type: ignore[arg-type]
    return Delivery(record, seen)


def printed(options: Options, what: Delivery, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    sink = make_sink(options, about(folder))
    sink.start()
    sink.deliver(what)
    sink.beat(True)
    sink.close()
    return capsys.readouterr().out


def test_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = printed(Options(), delivery(), tmp_path, capsys)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  part 48112  reject  0\.93  +\d+ ms\n", line)


def test_a_default_has_no_probability_and_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = printed(Options(), delivery(status="default", verdict="unsure"), tmp_path, capsys)
    assert re.fullmatch(r".*  part 48112  unsure  -    +\d+ ms  default\n", line)


@pytest.mark.parametrize(
    ("part", "name", "shown"),
    [
        ("", "a.png", "a.png"),
        ("", "line.mp4", "line.mp4 frame 3"),
        ("", "", "frame 3"),
        ("one\ntwo \x1b[31m", "", "one two ?[31m"),
        ("", "a\x1b.png", "a?.png"),
    ],
)
def test_what_a_part_is_called(
    part: str, name: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"  {shown}  " in printed(Options(), delivery(part=part, name=name), tmp_path, capsys)


def test_json_is_the_line_of_the_record_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "records.jsonl"
    with book(file) as opened:
        seen = frame()
        record = opened.add(seen, Firing("every"), "ok", (answer(),))
    assert printed(Options(json=True), Delivery(record, seen), tmp_path, capsys) == file.read_text("ascii")


def test_it_is_found_by_its_name() -> None:
    assert SINKS.get("terminal").Options is Options
