"""What templates may do to values, and what each of it may cost, checked before it is done.

Filters, methods and operators that are not named here are not there: no chat template needs them, and some (`wordwrap`,
`urlize`, `striptags`) take more time than their text is long. Most give back no more than they were given. For the rest
there is a bound: a function of the same arguments that returns the characters of the result, at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sized
from typing import TypeAlias

from edgevlm_runtime.text.sandbox.budget import MOST_BITS, OverBudget, current, measure

Bound: TypeAlias = "Callable[..., int] | None"

_ESCAPED = 12
"""Characters that one may become where text is escaped: two of JSON's \\uXXXX."""
_DIGITS = re.compile(r"\d+")
_QUOTED = re.compile(r"[ra]")
_LONGEST = 12
_MOST_PLACES = 100


def _size(value: object) -> int:
    return len(value) if isinstance(value, Sized) else 1


def _characters(*values: object) -> int:
    """Of all that is in them, as Python prints them."""
    found = measure(values, current().steps)
    return found.characters + 24 * found.values


def _replaced(text: object, old: object, new: object, count: object = -1) -> int:
    places = str(text).count(str(old)) if isinstance(text, str) else _characters(text)
    return _characters(text) + places * _characters(new)


def _joined(values: object, separator: object = "", attribute: object = None) -> int:
    return _characters(values) + _size(values) * _characters(separator)


def _widened(text: object, width: object = 80, fill: object = "") -> int:
    return _characters(text) + _whole(width)


def _indented(text: object, width: object = 4, first: object = False, blank: object = False) -> int:
    lines = str(text).count("\n") + 2
    return _characters(text) + lines * (_size(width) if isinstance(width, str) else _whole(width))


def _grouped(values: object, count: object, fill: object = None) -> int:
    return 64 * (_size(values) + _whole(count))


def _as_json(value: object, ensure_ascii: object = False, indent: object = None, *_: object, **__: object) -> int:
    found = measure(value, current().steps)
    step = _size(indent) if isinstance(indent, str) else _whole(indent or 0)
    depth = 1 if not step else _depth(value)
    return _ESCAPED * found.characters + found.values * (32 + step * depth)


def _depth(value: object) -> int:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return 1 + max((_depth(one) for one in inside), default=0)


def formatted(text: str, *args: object, **kwargs: object) -> int:
    """Of `text % args` and `text.format(*args)`: every number in the text may be a width, and so may every argument."""
    widths = sum(_number(digits) for digits in _DIGITS.findall(text))
    if "*" in text:
        widths += sum(abs(one) for one in args if isinstance(one, int)) * text.count("*")
    given = (*args, *kwargs.values())
    plain = all(isinstance(one, str | int | float) for one in given) and not _QUOTED.search(text)
    fields = text.count("%") + text.count("{")
    return len(text) + widths + fields * _characters(*given) * (1 if plain else _ESCAPED)


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= _LONGEST else 10**_LONGEST


def _escaped(text: object, *_: object, **__: object) -> int:
    return _ESCAPED * _characters(text)


def _whole(value: object) -> int:
    return abs(value) if isinstance(value, int) else 1


def _rounded(value: object, precision: object = 0, method: object = "common") -> int:
    if _whole(precision) > _MOST_PLACES:
        raise OverBudget("it rounds to more places than there are")
    return 0


def _stripped(text: object, chars: object = None) -> int:
    """Each character of the text may be looked for among the others: that many steps."""
    if chars is not None:
        current().step(_size(text) * _size(chars) // 64)
    return 0


def _sorted(values: object, *args: object, **kwargs: object) -> int:
    _by_attribute(values, *args, **kwargs)
    found = current().look(values)
    current().step(8 * found.values + found.characters // 8)
    return 0


def _by_attribute(values: object, *args: object, **kwargs: object) -> int:
    """A path of names is followed for each value."""
    names = sum(len(one) for one in (*args, *kwargs.values()) if isinstance(one, str))
    current().step(_size(values) * (1 + names // 2))
    return 0


def _summed(values: object, attribute: object = None, start: object = 0) -> int:
    if not isinstance(start, int | float):
        raise OverBudget("it adds up what are no numbers")
    return _by_attribute(values, attribute)


FILTERS: dict[str, Bound] = {
    "abs": None,
    "attr": None,
    "batch": _grouped,
    "capitalize": None,
    "center": _widened,
    "count": None,
    "d": None,
    "default": None,
    "dictsort": _sorted,
    "e": _escaped,
    "escape": _escaped,
    "filesizeformat": None,
    "first": None,
    "float": None,
    "forceescape": _escaped,
    "format": formatted,
    "groupby": _sorted,
    "indent": _indented,
    "int": None,
    "items": None,
    "join": _joined,
    "last": None,
    "length": None,
    "list": None,
    "lower": None,
    "map": _by_attribute,
    "max": _sorted,
    "min": _sorted,
    "random": None,
    "reject": _by_attribute,
    "rejectattr": _by_attribute,
    "replace": _replaced,
    "reverse": None,
    "round": _rounded,
    "safe": None,
    "select": _by_attribute,
    "selectattr": _by_attribute,
    "slice": _grouped,
    "sort": _sorted,
    "string": _escaped,
    "sum": _summed,
    "title": _escaped,  # it makes a list of the words
    "tojson": _as_json,
    "trim": _stripped,
    "truncate": None,
    "unique": _sorted,
    "upper": None,
    "urlencode": _escaped,
    "wordcount": None,
}
"""Filter to its bound."""

_TEXT: dict[str, Bound] = {
    "center": _widened,
    "join": lambda separator, values: _joined(values, separator),
    "ljust": _widened,
    "lstrip": _stripped,
    "replace": _replaced,
    "rjust": _widened,
    "rstrip": _stripped,
    "strip": _stripped,
    "zfill": _widened,
}
_NO_LONGER = """
    capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower
    isnumeric isprintable isspace istitle isupper lower partition removeprefix removesuffix rfind rindex rpartition
    rsplit split splitlines startswith swapcase title upper
"""
"""Methods of texts whose result is as long as the text at most, or three times as long."""
METHODS: dict[type, dict[str, Bound]] = {
    str: _TEXT | dict.fromkeys(_NO_LONGER.split()),
    dict: dict.fromkeys(("copy", "get", "items", "keys", "values")),
    list: dict.fromkeys(("copy", "count", "index")),
    tuple: dict.fromkeys(("count", "index")),
    range: dict.fromkeys(("count", "index")),
}
"""Type to its methods that may be called, each with its bound, whose first argument is the value itself."""

GLANCES = frozenset({"count", "d", "default", "first", "last", "length"})
"""Filters that do not look at what is in a value."""
_COMPARISONS = "== != < > <= >= eq ne lt gt le ge equalto greaterthan lessthan in lower upper"
COMPARING = frozenset(_COMPARISONS.split())
"""Tests that look at all of a value."""


def _added(left: object, right: object) -> int:
    if isinstance(left, str) or isinstance(right, str):
        return _ESCAPED * _characters(left, right) if _marked(left, right) else _size(left) + _size(right)
    return 64 * (_size(left) + _size(right)) if isinstance(left, list | tuple) else 0


def _multiplied(left: object, right: object) -> int:
    for some, times in ((left, right), (right, left)):
        if isinstance(some, str | list | tuple) and isinstance(times, int):
            return max(times, 0) * _size(some) * (1 if isinstance(some, str) else 64)
    _check_bits(_bits(left) + _bits(right))
    return 0


def _raised(base: object, exponent: object) -> int:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(_bits(base) * abs(exponent))
    return 0


def _remainder(left: object, right: object) -> int:
    if not isinstance(left, str):
        return 0
    args = right if isinstance(right, tuple) else (right,)
    return formatted(left, *args)


OPERATORS: dict[str, Callable[[object, object], int]] = {
    "+": _added,
    "-": lambda left, right: 0,
    "*": _multiplied,
    "**": _raised,
    "%": _remainder,
}


def _marked(*values: object) -> bool:
    """Whether adding them escapes one of them."""
    return any(hasattr(value, "__html__") for value in values)


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _check_bits(bits: int) -> None:
    if bits > MOST_BITS:
        raise OverBudget("it computes with numbers that are too large")
