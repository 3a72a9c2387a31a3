"""Whether a chain of records is whole: what was removed, altered, exchanged, put elsewhere.

    for found in verify(Path("records.jsonl")):
        for problem in found.problems: print(problem)

What it cannot see: records missing at the very end (they may never have been written), and a chain that somebody sealed
anew from some record on. Both show where a record's digest was kept elsewhere: every sink gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgevlm.watch.records import files
from edgevlm.watch.records.chain import FIRST, Link, TooNew, link
from edgevlm.watch.records.reading import Line, chains, lines
from edgevlm_runtime.bundle.folder import file_sha256


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold."""

    kind: str
    """"damaged" (a line that is no record), "altered" (not as it was written), "missing" (numbers that are not there),
    "order" (a record that stands after a later one), "twice", "exchanged" (not the record that the next one followed).
    """
    number: int | None
    """The record's, the first of those that are missing; None for a line that is no record."""
    text: str
    """On one line, with the place."""

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Verification:
    """What was found in one chain."""

    records: int = 0
    first: int | None = None
    last: int | None = None
    sha256: str = FIRST
    """Of the last record: held against a copy elsewhere, it covers all before."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no problem and should be known: older files deleted, a chain begun anew."""


@dataclass(slots=True)
class _State:
    found: Verification
    last: Link | None = None
    """The record with the largest number so far."""
    gaps: dict[int, str] = field(default_factory=dict)
    """Numbers that were left out, each with the place of the record after them."""
    damaged: int = 0
    """Lines that are no records since the last one that is."""


MOST_NAMED = 100_000
"""Numbers of one gap that are remembered one by one."""


def verify(path: Path) -> list[Verification]:
    """Check every chain of `path`, a file or a folder. Raises `EdgeVLMError` for none, and for a newer edgevlm's."""
    return [verify_chain(chain) for chain in chains(path)]


def verify_chain(chain: Sequence[Path]) -> Verification:
    """Check the files of one chain, oldest first. Raises `EdgeVLMError`."""
    state = _State(Verification())
    for at, file in enumerate(chain):
        begins = True
        for line in lines(file):
            begins = not _take(state, line, chain[at - 1] if at else None, begins) and begins
    _say_missing(state)
    return state.found


def _take(state: _State, line: Line, before: Path | None, begins: bool) -> bool:
    """One line; whether it is a record. `begins`: no record of its file came before."""
    try:
        now = link(line.data)
    except TooNew as error:
        raise TooNew(f"{line.place}: {error}") from error
    except ValueError as error:
        state.damaged += 1
        _problem(state, "damaged", None, f"{line.place}: not a record ({error})")
        return False
    found = state.found
    found.records += 1
    if not line.sealed:
        _problem(state, "altered", now.number, f"{line.place}: record {now.number} was altered")
    if state.last is None:
        _begin(state, line, now)
    elif now.number <= state.last.number:
        _out_of_order(state, line, now)
        return True
    elif now.number == state.last.number + 1:
        _check_link(state, line, now, before if begins else None)
    else:
        _leave_out(state, range(state.last.number + 1, now.number), line.place)
    state.last, state.damaged = now, 0
    found.last, found.sha256 = now.number, now.sha256
    return True


def _begin(state: _State, line: Line, now: Link) -> None:
    """The oldest record there is: a closed file's name says which it should be."""
    state.found.first = now.number
    named = files.first_number(line.file) or 1
    if now.number > named:
        _leave_out(state, range(named, now.number), line.place)
    elif named > 1:
        state.found.notes.append(f"begins with record {now.number}: older files were deleted")


def _check_link(state: _State, line: Line, now: Link, before: Path | None) -> None:
    assert state.last is not None
    if now.previous == state.last.sha256:
        return
    if before is not None and now.previous == file_sha256(before):
        state.found.notes.append(f"record {now.number} begins a new chain: {before} was found broken, and is as then")
        return
    text = f"{line.place}: record {now.number} does not follow record {state.last.number} as it stands: replaced"
    _problem(state, "exchanged", state.last.number, text)


def _out_of_order(state: _State, line: Line, now: Link) -> None:
    assert state.last is not None
    if state.gaps.pop(now.number, None) is not None:
        text = f"{line.place}: record {now.number} stands after record {state.last.number}"
        _problem(state, "order", now.number, text)
    else:
        _problem(state, "twice", now.number, f"{line.place}: record {now.number} is there twice")


def _leave_out(state: _State, numbers: range, place: str) -> None:
    """Damaged lines stand for as many records."""
    for number in numbers[state.damaged :][:MOST_NAMED]:
        state.gaps[number] = place
    left = numbers[state.damaged :][MOST_NAMED:]
    if left:
        _problem(state, "missing", left[0], f"{place}: before it, records {left[0]} to {left[-1]} are missing")


def _say_missing(state: _State) -> None:
    """Runs of numbers that never came."""
    run: list[int] = []
    for number in [*sorted(state.gaps), None]:
        if run and (number is None or number != run[-1] + 1 or state.gaps[number] != state.gaps[run[0]]):
            which = f"record {run[0]} is" if len(run) == 1 else f"records {run[0]} to {run[-1]} are"
            _problem(state, "missing", run[0], f"{state.gaps[run[0]]}: before it, {which} missing")
            run = []
        if number is not None:
            run.append(number)


def _problem(state: _State, kind: str, number: int | None, text: str) -> None:
    state.found.problems.append(Problem(kind, number, text))
