"""Answers as data: read out of what a model says, held against the schema, and judged by a field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgevlm.watch.rules.schema import FieldRule, Options, make_rule, parsed
from edgevlm_export import inspection
from edgevlm_runtime import VLM, Session
from edgevlm_runtime.errors import EdgeVLMError

QUESTION = "How many holes does the part have?"
COUNT = {"type": "integer", "minimum": 0}


@pytest.fixture(scope="module")
def session(inspector: VLM) -> Session:
    return inspector.session(next(inspection.examples("test", 1)).image)


@pytest.fixture(scope="module")
def count(session: Session) -> int:
    """What the model says, which is JSON: a number."""
    return int(session.ask(QUESTION).text)


def judged(session: Session, *rules: dict[str, Any], question: str = QUESTION, **options: Any) -> Any:
    made = Options(**{"schema": COUNT, **options}, rules=tuple(FieldRule(**rule) for rule in rules))
    return make_rule(made).judge(session, question)


def test_the_first_rule_that_holds(session: Session, count: int) -> None:
    for rule, holds in [
        ({"equals": count}, True),
        ({"equals": count + 1}, False),
        ({"equals": str(count)}, False),
        ({"above": count - 1}, True),
        ({"above": count}, False),
        ({"below": count + 0.5}, True),
        ({"below": count}, False),
        ({"one_of": (count + 1, count)}, True),
        ({"one_of": (count + 1,)}, False),
    ]:
        found = judged(session, {**rule, "verdict": "hit"}, otherwise="miss")
        assert (found.verdict, found.value, found.error) == ("hit" if holds else "miss", count, ""), rule
    assert judged(session, {"above": -1, "verdict": "first"}, {"above": -1, "verdict": "second"}).verdict == "first"


def test_an_answer_that_is_not_as_asked_for_is_unsure_and_says_why(session: Session, count: int) -> None:
    found = judged(session, {"above": -1, "verdict": "ok"}, schema={"type": "object"})
    assert (found.verdict, found.value, found.answer) == ("unsure", None, str(count))
    assert found.error == "the answer is not of type object"
    found = judged(session, {"above": -1, "verdict": "ok"}, question="What colour is the part?")
    assert (found.verdict, found.value) == ("unsure", None)
    assert found.error.startswith("the answer is no JSON: ")


def test_an_answer_that_is_not_sure_enough(session: Session, count: int) -> None:
    assert judged(session, {"equals": count, "verdict": "ok"}, at_least=1.0).verdict == "unsure"
    assert judged(session, {"equals": count, "verdict": "ok"}, at_least=0.0).verdict == "ok"


def test_without_rules_it_decides_nothing(session: Session, count: int) -> None:
    assert make_rule(Options(schema=COUNT)).words == ()
    assert (judged(session).verdict, judged(session).value) == ("", count)
    assert judged(session, {"equals": count, "verdict": "ok"}, verdict=False).verdict == ""


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": [1, 2]}\n```', {"a": [1, 2]}),
        ('Here it is: {"a": {"b": null}} I hope.', {"a": {"b": None}}),
        ("Found: [1, 2]", [1, 2]),
        (" true ", True),
        ('"text"', "text"),
    ],
)
def test_json_is_found_in_an_answer(said: str, value: object) -> None:
    assert parsed(said) == (value, "")


@pytest.mark.parametrize("said", ["", "none", '{"a": 1', "{a: 1}", "NaN", '{"a": Infinity}', "1e999", "[" * 60000])
def test_what_is_no_json(said: str) -> None:
    value, wrong = parsed(said)
    assert value is None
    assert wrong.startswith("the answer is no JSON: ")


def test_a_field_deep_inside(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an answer that a larger model would give."""
    said = {"defects": [{"kind": "dent", "mm": 3}], "done": True}
    answer = replace(session.ask(QUESTION), text=json.dumps(said))
    monkeypatch.setattr(Session, "ask", lambda *_, **__: answer)
    rules = ({"above": 2, "verdict": "reject"}, {"equals": "dent", "verdict": "dent"}, {"equals": 1, "verdict": "one"})
    for field, verdict in [
        ("defects.0.mm", "reject"),
        ("defects.0.kind", "dent"),
        ("defects.1.mm", "other"),
        ("defects.kind", "other"),
        ("done", "other"),
        ("nothing.here", "other"),
    ]:
        found = judged(session, *rules, schema={"type": "object"}, field=field, otherwise="other")
        assert (found.verdict, found.value) == (verdict, said), field


def test_a_schema_in_a_file(session: Session, count: int, tmp_path: Path) -> None:
    file = tmp_path / "count.json"
    file.write_text(json.dumps({"type": "integer", "maximum": count - 1}))
    found = judged(session, {"equals": count, "verdict": "ok"}, schema=None, schema_file=file)
    assert found.error == f"the answer is outside maximum {count - 1}"
    for content, message in [("{", "not a JSON schema"), ("[]", "not a JSON schema"), ('{"oneOf": []}', "oneOf")]:
        file.write_text(content)
        with pytest.raises(EdgeVLMError, match=message):
            make_rule(Options(schema_file=file))
    with pytest.raises(EdgeVLMError, match="not found"):
        make_rule(Options(schema_file=tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "bad value for schema"),
        ({"schema": {"type": "number", "multipleOf": 2}}, "schema: unknown keyword multipleOf: known are"),
        ({"schema": {}, "rules": [{"verdict": "ok"}]}, "one of equals, above, below, one_of"),
        ({"schema": {}, "rules": [{"verdict": "ok", "above": 1, "below": 2}]}, "one of equals, above, below, one_of"),
        ({"schema": {}, "rules": [{"verdict": " ", "above": 1}]}, "bad value for verdict"),
        ({"schema": {}, "otherwise": ""}, "bad value for otherwise"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises((EdgeVLMError, msgspec.ValidationError), match=message):
        msgspec.convert(options, Options)


def test_one_schema_is_enough() -> None:
    with pytest.raises(EdgeVLMError, match="bad value for schema"):
        Options(schema={}, schema_file=Path("count.json"))
