"""A table of a plan as the frozen dataclass that its keys belong to."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgevlm.watch.plan.faults import Fault, Place, check_keys
from edgevlm.watch.plan.secrets import from_environment, hide
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.reading import known

T = TypeVar("T")

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
"""TOML's words for those of msgspec."""
_AT = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<number>\d+)\]")
_EXPECTED = re.compile(r"^Expected `(?P<wanted>[^`]+)`(?P<length> of [a-z ]*length [^,]*)?, got `?(?P<got>[^`]+)`?$")
_MISSING = re.compile(r"^Object missing required field `(?P<key>[^`]+)`$")
_BAD_VALUE = re.compile(r"^bad value for (?P<key>\w+): ")


def names(kind: type[Any]) -> list[str]:
    """Keys that `kind` has."""
    return [field.name for field in dataclasses.fields(kind)]


def make(kind: type[T], table: Mapping[str, Any], place: Place, folder: Path, also: tuple[str, ...] = ()) -> T:
    """`table`, found at `place` of a plan, as a `kind`; relative paths are those of `folder`.

    `also`: keys that belong to the same table and were taken out of it, for the error's list. Raises `Fault` for
    unknown keys, for values of a wrong type, and for what `kind` itself refuses.
    """
    check_keys(place, table, [*also, *names(kind)])
    _check_inner(kind, table, place)
    given = from_environment(table, place)
    try:
        return msgspec.convert(given, known(kind), dec_hook=partial(_path, folder))
    except msgspec.ValidationError as error:
        found = _reworded(one_line(error), place)
        raise Fault(found.place, hide(found.text, given)) from None
    except EdgeVLMError as error:
        raise located(error, given, place) from None


def _check_inner(kind: type[Any], table: Mapping[str, Any], place: Place) -> None:
    """Raise `Fault` for unknown keys of tables within the table, for which msgspec has no eye."""
    hints = typing.get_type_hints(kind)
    for key, value in table.items():
        inner = next(_dataclasses(hints.get(key)), None)
        tables = [((*place, key, number), one) for number, one in enumerate(value)] if isinstance(value, list) else []
        for where, one in tables or [((*place, key), value)]:
            if inner is not None and isinstance(one, dict):
                check_keys(where, one, names(inner))
                _check_inner(inner, one, where)


def _dataclasses(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses(part)


def located(error: EdgeVLMError, table: Mapping[str, Any], place: Place) -> Fault:
    """What options say of a value of theirs, with the key's place where `table` has the key that they name."""
    text = one_line(error)
    named = _BAD_VALUE.match(text)
    if named is None or named["key"] not in table:
        return Fault(place, hide(text, table))
    return Fault((*place, named["key"]), hide(text[named.end() :], table))


def table_at(data: Mapping[str, Any], key: str, place: Place = ()) -> dict[str, Any]:
    """The table `[key]`, empty where there is none. Raises `Fault` for what is none."""
    found = data.get(key, {})
    if isinstance(found, list):
        raise Fault((*place, key), f"there is one at most: write [{key}], not [[{key}]]")
    if not isinstance(found, dict):
        raise Fault((*place, key), f"it must be a table: [{key}]")
    return found


def tables_at(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables `[[key]]`, in their order. Raises `Fault` for what is none."""
    found = data.get(key, [])
    if isinstance(found, dict):
        raise Fault((key,), f"there may be several: write [[{key}]], not [{key}]")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Fault((key,), f"it must be tables: [[{key}]]")
    return found


def check_values(value: Any, place: Place = ()) -> None:
    """Raise `Fault` for the first number that is not finite, and for text that no file or network takes."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault(place, f"{value} is not a finite number")
    if isinstance(value, str) and "\0" in value:
        raise Fault(place, "there is a zero byte in this text")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        check_values(item, (*place, name))


def _path(folder: Path, kind: type[Any], value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError("Expected `str`, got `other`")
    if not value:
        raise ValueError("it is empty: give the path of a file or folder")
    return folder / Path(value).expanduser() if value.startswith("~/") else folder / value


def _reworded(said: str, place: Place) -> Fault:
    """What msgspec says, in the words of a plan."""
    parts = _AT.match(said)
    text, path = (parts["text"], parts["path"] or "") if parts else (said, "")
    steps: list[str | int] = [one["key"] or int(one["number"]) for one in _STEP.finditer(path) if one["key"] != "..."]
    where = (*place, *steps)
    if missing := _MISSING.match(text):
        return Fault(where, f"the key {missing['key']} is missing")
    if expected := _EXPECTED.match(text):
        wanted = " or ".join(_WORDS.get(one, one) for one in expected["wanted"].split(" | ") if one != "null")
        got = _WORDS.get(expected["got"], expected["got"])
        instead = "" if got == "other" else f", not {got}"
        return Fault(where, f"it must be {wanted}{expected['length'] or ''}{instead}")
    return Fault(where, text[:1].lower() + text[1:])
