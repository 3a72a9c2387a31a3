"""Whatever is done to a chain of records, but at its very end, is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgevlm.watch.records import files
from edgevlm.watch.records.chain import decode, seal
from edgevlm.watch.records.reading import chains, records
from edgevlm.watch.records.verify import Problem, verify, verify_chain
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.booked import fill

COUNT = 24


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files or more."""
    file = tmp_path_factory.mktemp("chain") / "records.jsonl"
    fill(file, COUNT, rotate_mb=0.008)
    (found,) = chains(file)
    assert len(found) > 2
    return found


@pytest.fixture
def copied(chain: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy2(file, tmp_path / file.name)) for file in chain]


class Lines:
    """A chain as lines that can be changed; `problems` writes them into their files and looks."""

    def __init__(self, chain: list[Path], folder: Path) -> None:
        self.files = [(file.name, file.read_bytes().splitlines(keepends=True)) for file in chain]
        self.folder = folder

    def __getitem__(self, number: int) -> tuple[list[bytes], int]:
        """The lines of the file that a record is in, and its place there."""
        for _, lines in self.files:
            if number <= len(lines):
                return lines, number - 1
            number -= len(lines)
        raise IndexError(number)

    def problems(self) -> list[Problem]:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, lines in self.files:
            (self.folder / name).write_bytes(b"".join(lines))
        return verify_chain([self.folder / name for name, _ in self.files]).problems


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "chain"


numbers = st.integers(1, COUNT)


def test_a_chain_that_nobody_touched(chain: list[Path], scratch: Path) -> None:
    (found,) = verify(chain[-1])
    assert (found.records, found.first, found.last, found.problems, found.notes) == (COUNT, 1, COUNT, [], [])
    assert found.sha256 == list(records(chain[-1]))[-1].sha256
    assert Lines(chain, scratch).problems() == []


@settings(deadline=None)
@given(gone=st.sets(st.integers(1, COUNT - 1), min_size=1))
def test_removed_records_are_named(chain: list[Path], scratch: Path, gone: set[int]) -> None:
    lines = Lines(chain, scratch)
    for number in sorted(gone, reverse=True):
        within, at = lines[number]
        del within[at]
    assume(lines.files[0][1])  # a whole file less at the beginning is what `keep_mb` leaves: a note, no problem
    found = lines.problems()
    assert {problem.kind for problem in found} == {"missing"}
    named: set[int] = set()
    for problem in found:
        words = problem.text.split("before it, ")[1].replace(" are missing", "").replace(" is missing", "").split()
        ends = [int(word) for word in words if word.isdigit()]
        named |= set(range(ends[0], ends[-1] + 1))
    assert named == gone


@settings(deadline=None)
@given(number=numbers, place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_an_altered_byte_is_found(chain: list[Path], scratch: Path, number: int, place: int, flip: int) -> None:
    lines = Lines(chain, scratch)
    within, at = lines[number]
    line = bytearray(within[at])
    line[place % (len(line) - 1)] ^= flip
    within[at] = bytes(line)
    found = lines.problems()
    assert found
    assert {problem.kind for problem in found} <= {"altered", "damaged", "missing", "exchanged", "order", "twice"}
    file = next(name for name, several in lines.files if several is within)
    assert f"{file}, line {at + 1}:" in found[0].text


@pytest.mark.parametrize("number", [1, COUNT // 2, COUNT])
@pytest.mark.parametrize("schema", [b"3", b"9999"])
def test_an_altered_schema_is_no_newer_edgevlm(chain: list[Path], scratch: Path, number: int, schema: bytes) -> None:
    lines = Lines(chain, scratch)
    within, at = lines[number]
    altered = within[at].replace(b'"schema":1,', b'"schema":' + schema + b",")
    assert altered != within[at]
    within[at] = altered
    assert [(problem.kind, problem.number) for problem in lines.problems()] == [("altered", number)]


@settings(deadline=None)
@given(number=st.integers(1, COUNT - 1))
def test_a_record_that_was_altered_and_sealed_again(chain: list[Path], scratch: Path, number: int) -> None:
    lines = Lines(chain, scratch)
    within, at = lines[number]
    record = decode(within[at].replace(b'"verdict":"ok"', b'"verdict":"no"'))
    within[at] = seal(record)[1]
    (problem,) = lines.problems()
    assert (problem.kind, problem.number) == ("exchanged", number)


@settings(deadline=None)
@given(one=numbers, other=numbers)
def test_two_records_that_changed_places(chain: list[Path], scratch: Path, one: int, other: int) -> None:
    lines = Lines(chain, scratch)
    (first, at), (second, there) = lines[one], lines[other]
    first[at], second[there] = second[there], first[at]
    found = {problem.kind for problem in lines.problems()}
    assert found == (set() if one == other else {"order"}) or (COUNT in (one, other) and "order" in found)


@settings(deadline=None)
@given(number=numbers)
def test_a_record_that_is_there_twice(chain: list[Path], scratch: Path, number: int) -> None:
    lines = Lines(chain, scratch)
    within, at = lines[number]
    within.insert(at, within[at])
    (problem,) = lines.problems()
    assert (problem.kind, problem.number) == ("twice", number)


def test_a_file_that_was_removed(copied: list[Path]) -> None:
    copied[1].unlink()
    (found,) = verify(copied[-1])
    (problem,) = found.problems
    assert (problem.kind, problem.number) == ("missing", files.first_number(copied[1]))


def test_the_oldest_file_may_be_deleted_but_not_its_lines(copied: list[Path]) -> None:
    copied[0].unlink()
    (found,) = verify(copied[-1])
    assert (found.problems, len(found.notes)) == ([], 1)
    lines = copied[1].read_bytes().splitlines(keepends=True)
    copied[1].write_bytes(b"".join(lines[1:]))
    (problem,) = verify(copied[-1])[0].problems
    assert (problem.kind, problem.number) == ("missing", files.first_number(copied[1]))


def test_all_but_the_last_file_cannot_be_deleted(copied: list[Path]) -> None:
    for file in copied[:-1]:
        file.unlink()
    (problem,) = verify(copied[-1])[0].problems
    assert (problem.kind, problem.number) == ("missing", 1)


def test_a_damaged_line_is_named_by_file_and_line(copied: list[Path]) -> None:
    file = copied[1]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b'{"schema":1,"number":\n', *lines[2:]]))
    (problem,) = verify(copied[-1])[0].problems
    assert (problem.kind, problem.number) == ("damaged", None)
    assert problem.text.startswith(f"{file}, line 2: not a record (")
    with pytest.raises(EdgeVLMError, match=f"{file.name}, line 2: not a record"):
        list(records(copied[-1]))


def test_a_line_that_is_being_written_is_left_out(copied: list[Path]) -> None:
    with copied[-1].open("ab") as file:
        file.write(b'{"schema":1,"number":25,"id":"')
    assert verify(copied[-1])[0].problems == []
    assert len(list(records(copied[-1]))) == COUNT


def test_a_folder_of_several_chains(copied: list[Path], tmp_path: Path) -> None:
    fill(tmp_path / "line-2.jsonl", 2)
    (tmp_path / "records.marks.jsonl").write_text('{"number":1}\n')
    (tmp_path / "questions.jsonl").write_text('{"question":"Scratched?"}\n')
    assert [found.records for found in verify(tmp_path)] == [2, COUNT]
    assert len(list(records(tmp_path))) == COUNT + 2


@pytest.mark.parametrize("name", ["nothing.jsonl", "empty"])
def test_where_there_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgeVLMError, match=r"no records in|no such records"):
        verify(tmp_path / name)
