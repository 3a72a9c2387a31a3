"""The book: numbers and chain over restarts, rotation, one writer, files that are broken or somebody else's."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevlm.watch.records import files
from edgevlm.watch.records.chain import FIRST, seal
from edgevlm.watch.records.reading import chains, records
from edgevlm.watch.records.verify import verify
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.booked import add, answer, book, fill, frame


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "line-1" / "records.jsonl"


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def test_numbers_and_chain_go_on_after_a_restart(file: Path) -> None:
    given = [*fill(file, 3), *fill(file, 2)]
    assert [record.number for record in given] == [1, 2, 3, 4, 5]
    assert [record.previous for record in given] == [FIRST, *(record.sha256 for record in given[:-1])]
    assert list(records(file)) == given, "what is read is what was given"
    assert len({record.id for record in given}) == 5


def test_anybody_can_check_a_line_with_sed_and_sha256sum(file: Path) -> None:
    fill(file, 3)
    shell = """sed -n 2p "$0" | sed 's/,"sha256":"[0-9a-f]*"}$/}/' | tr -d '\\n' | sha256sum"""
    said = subprocess.run(["sh", "-c", shell, file], check=True, capture_output=True, text=True).stdout.split()[0]
    first, second, third = lines(file)
    assert said == second["sha256"] == third["previous"]
    body = {name: value for name, value in first.items() if name != "sha256"}
    text = json.dumps(body, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == first["sha256"] == second["previous"]


def test_odd_values_come_back(file: Path) -> None:
    odd = answer(
        probability=float("nan"),
        probabilities={"z": float("inf"), "a": np.float32(0.25)},
        value={"holes": [1, float("nan")], "size": np.int64(3)},
    )
    with book(file) as opened:
        given = opened.add(frame(), Firing("mqtt", 'half \udcff, "quoted",\nline\u2028'), "ok", (odd,))
    (found,) = records(file)
    assert found.trigger_text == given.trigger_text
    assert (found.answers[0].probability, found.answers[0].value) == (None, {"holes": [1, None], "size": 3})
    assert found.answers[0].probabilities == {"a": 0.25}
    assert fill(file, 1)[0].previous == found.sha256
    assert not verify(file)[0].problems


def test_everything_a_record_says(file: Path) -> None:
    with book(file) as opened:
        seen = frame(7, "part.png")
        default = opened.add(seen, Firing("modbus", "48112", at=12.5), "unsure", status="default", dropped=4)
        opened.use(bundle="c" * 64, plan="d" * 64)
        late = opened.add(seen, Firing("modbus"), "ok", (answer(),), status="late", late_for=default.number)
    assert (default.status, default.verdict, default.answers, default.dropped) == ("default", "unsure", (), 4)
    assert (default.trigger, default.trigger_text, default.triggered_at) == ("modbus", "48112", 12.5)
    assert (default.frame.sequence, default.frame.sha256, default.frame.name) == (7, seen.digest, "part.png")
    assert (default.frame.width, default.frame.height) == (8, 6)
    assert (late.late_for, late.bundle, late.plan) == (1, "c" * 64, "d" * 64)
    assert late.latency_ms >= default.latency_ms >= 0


def test_without_a_file_records_are_numbered_all_the_same() -> None:
    with book(None) as opened:
        assert [add(opened).number, add(opened).number, opened.number] == [1, 2, 2]


def test_threads_share_a_book(file: Path) -> None:
    with book(file, rotate_mb=0.02) as opened:
        threads = [threading.Thread(target=lambda: [add(opened, i) for i in range(25)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (found,) = verify(file)
    assert (found.records, found.first, found.last, found.problems) == (200, 1, 200, [])


def test_full_files_are_closed_under_their_first_number(file: Path) -> None:
    given = fill(file, 40, rotate_mb=0.01)
    (chain,) = chains(file)
    assert len(chain) > 2
    assert all(path.stat().st_size <= 10_000 for path in chain)
    for path in chain[:-1]:
        assert files.first_number(path) == lines(path)[0]["number"]
    assert list(records(file)) == given
    assert fill(file, 1)[0].previous == given[-1].sha256
    assert next(iter(records(chain[1]))).number == files.first_number(chain[1]), "a closed file is read alone"


def test_old_files_are_deleted_above_the_bound(file: Path) -> None:
    fill(file, 60, rotate_mb=0.01, keep_mb=0.02)
    (chain,) = chains(file)
    assert sum(path.stat().st_size for path in chain[:-1]) <= 20_000
    (found,) = verify(file)
    assert found.problems == []
    assert found.last == 60
    assert found.first == files.first_number(chain[0]) > 1
    assert "older files were deleted" in found.notes[0]
    assert fill(file, 1)[0].number == 61


def test_a_line_that_was_cut_off_is_dropped(file: Path) -> None:
    *_, last = fill(file, 3)
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[0][:100] + b"\0" * 40)
    assert [record.number for record in records(file)] == [1, 2, 3]
    (after,) = fill(file, 1)
    assert (after.number, after.previous) == (4, last.sha256)
    assert file.read_bytes().startswith(whole)
    assert verify(file)[0].problems == []


def test_killed_between_closing_a_file_and_beginning_the_next(file: Path) -> None:
    *_, last = fill(file, 3)
    file.rename(files.closed(file, 1))
    (after,) = fill(file, 1)
    assert (after.number, after.previous) == (4, last.sha256)


@pytest.mark.parametrize("kept_whole", [True, False])
def test_a_broken_file_is_closed_and_a_new_chain_seals_it(file: Path, kept_whole: bool) -> None:
    fill(file, 4)
    file.write_bytes(file.read_bytes().replace(b'"verdict":"ok"', b'"verdict":"no"', 1))
    status = Status()
    with book(file, status) as opened:
        after = add(opened)
    (condition,) = status.snapshot().conditions
    assert condition.name == "records chain"
    assert "line 1: record 1 was altered" in condition.text
    closed = files.closed(file, 1)
    assert (after.number, after.previous) == (5, hashlib.sha256(closed.read_bytes()).hexdigest())
    assert fill(file, 1)[0].previous == after.sha256
    if not kept_whole:  # changed again since
        closed.write_bytes(closed.read_bytes().replace(b'"verdict":"no"', b'"verdict":"ok"', 1))
    (found,) = verify(file)
    assert [problem.kind for problem in found.problems] == (["altered"] if kept_whole else ["exchanged"])
    assert len(found.notes) == (1 if kept_whole else 0)
    assert found.last == 6


def test_a_line_in_the_middle_that_is_no_record_breaks_the_chain(file: Path) -> None:
    fill(file, 4)
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*whole[:2], b"\xff\xfe{\n", whole[3]]))
    with book(file) as opened:
        assert add(opened).number == 5


def test_one_process_writes(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.support.booked import fill;"
        "from edgevlm_runtime.errors import EdgeVLMError\n"
        "try: fill(Path(sys.argv[1]), 1)\n"
        "except EdgeVLMError as error: sys.exit(str(error))"
    )
    with book(file) as opened:
        add(opened)
        other = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert f"another process writes records to {file}" in other.stderr
    assert [record.number for record in records(file)] == [1]
    subprocess.run([sys.executable, "-c", program, file], check=True)
    assert [record.number for record in records(file)] == [1, 2]


def test_somebody_elses_file_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"question": "Scratched?"}\n')
    with pytest.raises(EdgeVLMError, match="holds something else than records: choose another file"):
        book(file)
    assert file.read_text() == '{"question": "Scratched?"}\n'


def test_records_of_a_newer_edgevlm_are_refused(file: Path) -> None:
    (given,) = fill(file, 1)
    newer = seal(replace(given, schema=2))[1]
    file.write_bytes(newer)
    for read in (lambda: book(file), lambda: list(records(file)), lambda: verify(file)):
        with pytest.raises(EdgeVLMError, match=r"line 1: schema 2 is of a newer edgevlm.*upgrade"):
            read()
    assert file.read_bytes() == newer


def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeVLMError, match=r"cannot keep records in .*: choose another file"):
        book(tmp_path / "file" / "records.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(EdgeVLMError, match=r"cannot keep records in .*: choose another file"):
        book(tmp_path / "folder.jsonl")


def test_a_file_that_is_taken_away_is_begun_anew(file: Path) -> None:
    with book(file) as opened:
        add(opened)
        file.unlink()
        assert add(opened).number == 2
    assert [record.number for record in records(file)] == [2]
    assert [problem.kind for problem in verify(file)[0].problems] == ["missing"]


def test_closing_twice_lets_the_next_one_write(file: Path) -> None:
    opened = book(file)
    opened.close()
    opened.close()
    assert fill(file, 1)[0].number == 1
    assert not files.lock(file).exists()
