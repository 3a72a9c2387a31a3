"""Marks: the last of a record counts; many write at once; nothing is lost by a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgevlm.watch.records import files
from edgevlm.watch.records.marks import Mark, Marks, about, read_marks
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.booked import fill


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return files.marks(tmp_path / "records.jsonl")


def mark(number: int, **more: object) -> Mark:
    return Mark(number=number, id=f"id {number}", mark="wrong", **more)  # type: ignore[arg-type]


def test_the_last_mark_of_a_record_counts(file: Path) -> None:
    assert read_marks(file) == {}
    first, second = fill(file.with_name("records.jsonl"), 2)
    marks = Marks(file)
    marks.add(about(first, "reject", note="ein Kratzer \u2192 oben", who="anna"))
    marks.add(about(second, "ok"))
    again = about(first, "ok", note="dust")
    marks.add(again)
    found = read_marks(file)
    assert found[first.id] == again
    assert (found[first.id].mark, found[second.id].mark) == ("right", "right")
    assert len(file.read_text("ascii").splitlines()) == 3
    assert not file.with_name(f"{file.name}.lock").exists()


def test_what_would_have_been_right(file: Path) -> None:
    (record,) = fill(file.with_name("records.jsonl"), 1)
    wrong = about(record, "reject")
    assert (wrong.mark, wrong.verdict, wrong.number) == ("wrong", "reject", 1)
    given = mark(1, answers={"scratch": "yes"})
    Marks(file).add(given)
    assert read_marks(file) == {"id 1": given}
    with pytest.raises(EdgeVLMError, match="bad value for mark: 'bad'"):
        Mark(number=1, id="x", mark="bad")


def test_a_mark_that_was_cut_off_goes(file: Path) -> None:
    Marks(file).add(mark(1))
    with file.open("ab") as opened:
        opened.write(b'{"number":2,"id":"id 2","ma')
    assert list(read_marks(file)) == ["id 1"]
    Marks(file).add(mark(3))
    assert list(read_marks(file)) == ["id 1", "id 3"]


def test_threads_and_processes_mark_at_once(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgevlm.watch.records.marks import Mark, Marks\n"
        "for i in range(20): Marks(Path(sys.argv[1])).add(Mark(number=i, id=f'other {i}', mark='right'))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, file])
    marks = Marks(file)
    threads = [
        threading.Thread(target=lambda start=start: [marks.add(mark(start + i)) for i in range(10)])
        for start in range(0, 50, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(60) == 0
    assert len(read_marks(file)) == 70


def test_a_damaged_mark_is_named(file: Path) -> None:
    Marks(file).add(mark(1))
    with file.open("ab") as opened:
        opened.write(b'{"number":2,"id":"x","mark":"maybe"}\n')
    with pytest.raises(EdgeVLMError, match=f"{file.name}, line 2: not a mark: bad value for mark"):
        read_marks(file)


def test_a_mark_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeVLMError, match="the mark cannot be kept in"):
        Marks(tmp_path / "file" / "records.marks.jsonl").add(mark(1))
