"""What one rendering of a template may spend: steps, which stand for time, and characters, which stand for memory.

A step is one node of the template's program that runs, or one value that an operation looks at; text is looked at
64 characters per step. Characters are counted when an operation makes them, whatever becomes of them. So both counts
depend on template and messages alone, and not on the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from jinja2.exceptions import TemplateRuntimeError

CHARACTERS_A_STEP = 64
VALUE_CHARACTERS = 64
"""What a value in a list counts for."""
MOST_DEPTH = 64
"""Lists within lists; the libraries below go through them by recursion."""
MOST_BITS = 4096
"""Of a whole number."""


class OverBudget(TemplateRuntimeError):
    """The template wants more than a conversation can need."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What is in a value: values, itself included, and characters of text."""

    values: int
    characters: int


_ONE = Amount(1, 0)


class Budget:
    """What is left to one rendering. For one thread."""

    __slots__ = ("characters", "steps")

    def __init__(self, steps: int, characters: int) -> None:
        self.steps = steps
        self.characters = characters

    @classmethod
    def for_messages(cls, messages: Iterable[Mapping[str, Any]], variables: Mapping[str, Any]) -> Budget:
        """Enough for a template that goes through the whole conversation again for each of its messages.

        Templates in use take some 50 steps and three times the characters of what is given.
        """
        given = measure([list(messages), variables], None)
        steps = 200_000 + 500 * given.values + 2 * given.values**2
        return cls(steps + given.values * given.characters // 2048, 4_000_000 + 24 * given.characters)

    def step(self, steps: int) -> None:
        """Count work that is about to be done. Raises `OverBudget`."""
        self.steps -= max(steps, 0)
        if self.steps < 0:
            raise OverBudget("it takes too many steps: a loop or a call in it does not end where it should")

    def look(self, value: object) -> Amount:
        """Count a look at all of a value. Raises `OverBudget`, for what is nested too deeply as well."""
        if type(value) is str:  # most are
            size = len(value)
            self.step(1 + size // CHARACTERS_A_STEP)
            return Amount(1, size)
        if value is None or type(value) is bool:
            self.step(1)
            return _ONE
        found = measure(value, self.steps)
        self.step(found.values + found.characters // CHARACTERS_A_STEP)
        return found

    def expect(self, characters: int) -> None:
        """An operation is about to make so much text, at most. Raises `OverBudget` where that is not left."""
        if characters > self.characters:
            raise OverBudget("it makes too much text")

    def make(self, characters: int) -> None:
        """Count text that is made. Raises `OverBudget`."""
        self.expect(characters)
        self.characters -= max(characters, 0)

    def made(self, value: object) -> None:
        """Count what an operation has given back."""
        if isinstance(value, str):
            self.make(len(value))
        elif isinstance(value, int):
            check_number(value)
        elif isinstance(value, list | tuple | dict):
            self.step(len(value) // 8)
            texts = sum(len(one) for one in value if isinstance(one, str))
            self.make(VALUE_CHARACTERS * len(value) + texts)


def check_number(value: int) -> None:
    """Raise `OverBudget` for whole numbers of more digits than any conversation counts in."""
    if value.bit_length() > MOST_BITS:
        raise OverBudget("it computes with numbers that are too large")


def measure(value: object, most: int | None) -> Amount:
    """What is in `value`. Raises `OverBudget` where it is nested too deeply or there are more than `most` values.

    A list that holds another one twice counts it twice, as everything does that prints or compares it.
    """
    values = characters = 0
    pending: list[tuple[int, Iterable[object]]] = [(0, (value,))]
    while pending:
        depth, group = pending.pop()
        if depth > MOST_DEPTH:
            raise OverBudget("it nests lists too deeply")
        for one in group:
            values += 1
            if isinstance(one, str):
                characters += len(one)
            elif isinstance(one, Mapping):
                pending.append((depth + 1, [*one.keys(), *one.values()]))
            elif isinstance(one, _CONTAINERS):
                pending.append((depth + 1, cast(Iterable[object], one)))
            elif isinstance(one, range):
                values += len(one)
            elif isinstance(one, int):
                check_number(one)
        if most is not None and values > most:
            raise OverBudget("it looks at too many values")
    return Amount(values, characters)


_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
_current: ContextVar[Budget] = ContextVar("budget of the template being rendered")


def current() -> Budget:
    """The budget of the rendering under way in this thread."""
    return _current.get()


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Let what is rendered within spend `budget`."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)
