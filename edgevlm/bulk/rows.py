"""What goes from reader to asker to writer, and as which bytes: rows, questions about one picture, results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

MOST_TOGETHER = 64
"""Questions about one picture that are asked together; more are asked in several goes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an input."""

    number: int
    """Its place in the input, from 0."""
    id: str
    image: str | None = None
    """The picture's name as the input has it; None where the input has its bytes alone."""
    place: str | None = None
    """Where the picture is: a path, or an address."""
    data: bytes | None = None
    """The picture's bytes, where the input has them."""
    question: str | None = None
    """Of this row alone, in place of those of the command."""
    error: str | None = None
    """Why the row cannot be asked."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about one row."""

    slot: int
    """The place of its answer in the output."""
    id: str
    image: str | None
    question: str


@dataclass(frozen=True, slots=True)
class Group:
    """Questions about the same picture, which share a session and so its prefix."""

    place: str | None
    data: bytes | None
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the output."""

    slot: int
    """Its place in the output; not written there."""
    id: str
    image: str | None
    question: str
    answer: str | None = None
    probability: float | None = None
    """With choices: of the answer."""
    probabilities: dict[str, float] | None = None
    """With choices: of each."""
    value: Any = None
    """With a schema: the answer as data."""
    tokens: int = 0
    """Tokens that were generated."""
    milliseconds: float = 0.0
    """What the answer took; a picture's first answer counts its preparation."""
    error: str | None = None
    """Why there is no answer."""


COLUMNS = tuple(name for name in Result.__slots__ if name != "slot")
"""Columns of an output."""


def failed(ask: Ask, error: str) -> Result:
    """The result of a question that could not be asked."""
    return Result(ask.slot, ask.id, ask.image, ask.question, error=error)


def asks_of(row: Row, questions: Sequence[str]) -> tuple[Ask, ...]:
    """Every question about a row: its own, else those of the command. Slots depend on the row's number alone."""
    first = row.number * slots_of_row(questions)
    asked = [row.question] if row.question is not None else questions or [""]
    return tuple(Ask(first + k, row.id, row.image, question) for k, question in enumerate(asked))


def slots_of_row(questions: Sequence[str]) -> int:
    """Slots that each row has in the output; those of a row with a question of its own are not all used."""
    return max(1, len(questions))


def together(rows: Iterable[Row], pending: Callable[[Row], Sequence[Ask]]) -> Iterator[Group]:
    """Questions still to be asked, those of neighbouring rows about the same picture in one group."""
    place: str | None = None
    data: bytes | None = None
    asks: list[Ask] = []
    for row in rows:
        same = row.data is None and row.place is not None and row.place == place and len(asks) < MOST_TOGETHER
        if asks and not same:
            yield Group(place, data, tuple(asks))
            asks = []
        place, data = row.place, row.data
        asks.extend(pending(row))
    if asks:
        yield Group(place, data, tuple(asks))


def encode(message: Any) -> bytes:
    """One line of JSON; bytes are in base64."""
    return msgspec.json.encode(message) + b"\n"
