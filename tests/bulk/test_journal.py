"""The journal alone: whatever was cut off, every place has one result."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm.bulk.journal import Journal
from edgevlm.bulk.rows import Ask, Result

HEADER = {"map": 1, "questions": ["?"]}
ASKS = [Ask(slot, f"id {slot}", None, "?") for slot in range(6)]


def result(ask: Ask, answer: str) -> Result:
    return Result(ask.slot, ask.id, ask.image, ask.question, answer)


@settings(max_examples=80, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 1500), st.lists(st.integers(0, 5), max_size=6))
def test_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, order: list[int], kept: int, twice: list[int]) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path, HEADER) as journal:
        assert journal.pending(ASKS) == ASKS
        for slot in [*order, *twice]:
            journal.add(result(ASKS[slot], "first"))
    path.write_bytes(path.read_bytes()[:kept])
    with Journal(path, HEADER, resume=True) as journal:
        left = journal.pending(ASKS)
        assert journal.taken + len(left) == len(ASKS)
        for ask in reversed(left):
            journal.add(result(ask, "second"))
        found = list(journal.results())
    assert [one.slot for one in found] == list(range(6))
    assert sum(one.answer == "first" for one in found) == len(ASKS) - len(left)


def test_rows_that_left_the_input_leave_the_output(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        for ask in ASKS:
            journal.pending([ask])
            journal.add(result(ask, "a"))
    moved = [Ask(0, "id 4", None, "?"), Ask(1, "new", None, "?"), Ask(2, "id 1", None, "?")]
    with Journal(tmp_path / "j", HEADER, resume=True) as journal:
        (left,) = journal.pending(moved)
        journal.add(result(left, "b"))
        assert [(one.id, one.answer) for one in journal.results()] == [("id 4", "a"), ("new", "b"), ("id 1", "a")]
