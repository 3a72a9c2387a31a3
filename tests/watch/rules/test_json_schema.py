"""The keywords of JSON Schema that are known, one by one, with what they let through and what not."""

from __future__ import annotations

from typing import Any

import pytest

from edgevlm.watch.rules.json_schema import check_schema, problem
from edgevlm_runtime.errors import EdgeVLMError

PERSON = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, [None, 1, {}, []], []),
        ({"type": "integer"}, [1, 1.0, -3, 10**400], [1.5, True, "1", None]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "null"}, [None], [0, False, ""]),
        ({"type": ["string", "null"]}, ["x", None], [1]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", True, 2]),
        ({"const": 0}, [0], [False, 1]),
        ({"minimum": 1, "maximum": 2}, [1, 2, "text"], [0.9, 2.1]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1.5], [1, 2]),
        ({"minLength": 1, "maxLength": 2}, ["a", "ab", 7], ["", "abc"]),
        ({"pattern": "^a"}, ["ab", 1], ["ba"]),
        ({"items": {"type": "string"}, "minItems": 1, "maxItems": 2}, [["a"], ["a", "b"]], [[], ["a"] * 3, [1]]),
        (PERSON, [{"a": 1}], [{}, {"a": "1"}, {"a": 1, "b": 2}, []]),
        ({"additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "1"}]),
        ({"properties": {"a": {"items": PERSON}}}, [{"a": [{"a": 1}]}, {}], [{"a": [{"a": 1}, {}]}]),
    ],
)
def test_keywords(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    check_schema(schema)
    for value in good:
        assert problem(value, schema) is None, value
    for value in bad:
        assert problem(value, schema) is not None, value


def test_a_problem_says_where() -> None:
    assert problem({"a": [{"a": 1}, {}]}, {"properties": {"a": {"items": PERSON}}}) == "a.1 has no a"
    assert problem({"b": 1}, {**PERSON, "required": []}) == "b is not expected"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "schema must be a table"),
        ({"type": "float"}, r"schema\.type must be one of object"),
        ({"type": []}, r"schema\.type must be"),
        ({"type": [1]}, r"schema\.type must be"),
        ({"enum": []}, r"schema\.enum must be a list"),
        ({"minimum": "1"}, r"schema\.minimum must be a number"),
        ({"required": "a"}, r"schema\.required must be a list of names"),
        ({"properties": []}, r"schema\.properties must be a table"),
        ({"pattern": "("}, r"schema\.pattern must be a regular expression"),
        ({"properties": {"a": {"items": {"oneOf": []}}}}, r"schema\.properties\.a\.items: unknown keyword oneOf"),
        ({"properties": {"a": 1}}, r"schema\.properties\.a must be a table"),
    ],
)
def test_bad_schemas(schema: Any, message: str) -> None:
    with pytest.raises(EdgeVLMError, match=message):
        check_schema(schema)


def test_a_schema_without_end() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    with pytest.raises(EdgeVLMError, match="nested too deeply"):
        check_schema(schema)
