"""What is wrong with a plan, and where: the key's path, which becomes a line number where there is a file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import shown

LONGEST_KEY = 64
Place = tuple[str | int, ...]
"""Keys and numbers from the top of a plan: ("question", 1, "region") is the key `region` of the second question."""


class Fault(EdgeVLMError):
    """Something in a plan that cannot be."""

    def __init__(self, place: Place, text: str) -> None:
        """`text`: what is wrong, and what is allowed."""
        self.place = place
        self.text = text
        super().__init__(" ".join((f"{spoken(place)}: {text}" if place else text).split()))


def spoken(place: Place) -> str:
    """`question 2: region`: as people count, from 1."""
    words: list[str] = []
    for part in place:
        if isinstance(part, int) and words:
            words[-1] += f" {part + 1}"
        else:
            key = str(part)
            words.append(key if key.isprintable() and 0 < len(key) <= LONGEST_KEY else shown(key))
    return ": ".join(words)


class UnknownKey(Fault):
    """A key that its table does not have."""

    def __init__(self, place: Place, known: Sequence[str]) -> None:
        """Says the nearest of `known`, and all of them."""
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        super().__init__(place, f"unknown key: {guess}known are {', '.join(known)}")


def check_keys(place: Place, table: Iterable[str], known: Sequence[str]) -> None:
    """Raise `UnknownKey` for the first key that is not among `known`."""
    for key in table:
        if key not in known:
            raise UnknownKey((*place, key), known)
