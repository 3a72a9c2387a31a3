"""Whether a value is what a JSON schema asks for: the keywords that describe small records, and no others.

`check_schema` refuses a keyword it does not know when the plan is read: one that were passed over would let answers
through that the plan's writer believes checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgevlm_runtime.errors import EdgeVLMError

Schema = Mapping[str, Any]
DEEPEST = 16
ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "title", "description", "default", "examples"})


def is_number(value: Any) -> bool:
    """Whether JSON calls it a number: true is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": is_number,
    "integer": lambda value: is_number(value) and (isinstance(value, int) or value.is_integer()),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda value, limit: value >= limit),
    "maximum": ("number", lambda value, limit: value <= limit),
    "exclusiveMinimum": ("number", lambda value, limit: value > limit),
    "exclusiveMaximum": ("number", lambda value, limit: value < limit),
    "minLength": ("string", lambda value, limit: len(value) >= limit),
    "maxLength": ("string", lambda value, limit: len(value) <= limit),
    "minItems": ("array", lambda value, limit: len(value) >= limit),
    "maxItems": ("array", lambda value, limit: len(value) <= limit),
}
"""Keywords with one number: of which type the values are that they look at, and what must hold."""
KEYWORDS = ANNOTATIONS | {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "pattern", *LIMITS,
}  # fmt: skip


def check_schema(schema: Any, place: str = "schema", depth: int = 0) -> None:
    """Raise `EdgeVLMError`, which says where, for a schema that is none or says more than is understood here."""
    if not isinstance(schema, Mapping):
        raise EdgeVLMError(f'{place} must be a table, as {{ type = "object" }}')
    if depth > DEEPEST:
        raise EdgeVLMError(f"{place} is nested too deeply: {DEEPEST} levels at most")
    unknown = sorted(map(str, set(schema) - KEYWORDS))
    if unknown:
        known = ", ".join(sorted(KEYWORDS - ANNOTATIONS))
        raise EdgeVLMError(f"{place}: unknown keyword {unknown[0]}: known are {known}")
    for keyword, (holds, wanted) in _FORMS.items():
        if keyword in schema and not holds(schema[keyword]):
            raise EdgeVLMError(f"{place}.{keyword} must be {wanted}")
    for name, part in _parts(schema):
        check_schema(part, f"{place}.{name}", depth + 1)


def problem(value: Any, schema: Schema, place: str = "") -> str | None:
    """What is wrong with `value`, and where; None where it is as asked for."""
    return next(_problems(value, schema, place), None)


def _problems(value: Any, schema: Schema, place: str) -> Iterator[str]:
    where = place or "the answer"
    kinds = _several(schema.get("type", []))
    if kinds and not any(TYPES[kind](value) for kind in kinds):
        yield f"{where} is not of type {' or '.join(kinds)}"
        return
    if "const" in schema and not equal(value, schema["const"]):
        yield f"{where} is not {schema['const']!r}"
    if "enum" in schema and not any(equal(value, one) for one in schema["enum"]):
        yield f"{where} is none of {', '.join(map(repr, schema['enum']))}"
    for keyword, (kind, holds) in LIMITS.items():
        if keyword in schema and TYPES[kind](value) and not holds(value, schema[keyword]):
            yield f"{where} is outside {keyword} {schema[keyword]}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} does not match {schema['pattern']}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), f"{place}.{number}" if place else str(number))
    if isinstance(value, dict):
        yield from _of_members(value, schema, place)


def _of_members(value: dict[str, Any], schema: Schema, place: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            yield f"{place or 'the answer'} has no {name}"
    for name, item in value.items():
        inside = f"{place}.{name}" if place else name
        if name in known:
            yield from _problems(item, known[name], inside)
        elif others is False:
            yield f"{inside} is not expected"
        elif isinstance(others, Mapping):
            yield from _problems(item, others, inside)


def _parts(schema: Schema) -> Iterator[tuple[str, Any]]:
    """Schemas within a schema, and where."""
    for name, part in schema.get("properties", {}).items():
        yield f"properties.{name}", part
    for keyword in ("items", "additionalProperties"):
        if not isinstance(schema.get(keyword, True), bool):
            yield keyword, schema[keyword]


def _several(kinds: Any) -> list[str]:
    return kinds if isinstance(kinds, list) else [kinds]


def equal(value: Any, other: Any) -> bool:
    """As JSON is equal: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, OverflowError, RecursionError):
        return False
    return True


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (
        lambda value: bool(_several(value)) and _texts(_several(value)) and set(_several(value)) <= set(TYPES),
        f"one of {', '.join(TYPES)}, or a list of them",
    ),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "properties": (lambda value: isinstance(value, Mapping), "a table of schemas"),
    "required": (_texts, "a list of names"),
    "additionalProperties": (lambda value: isinstance(value, bool | Mapping), "true, false or a schema"),
    "items": (lambda value: isinstance(value, Mapping), "a schema"),
    "pattern": (_is_pattern, "a regular expression"),
    **dict.fromkeys(LIMITS, (is_number, "a number")),
}
"""What a keyword's value must be, and that in words."""
