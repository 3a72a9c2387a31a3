"""The record says what the single answers say, keeps its schema, and changes nothing that was asked before it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_export import inspection
from edgevlm_export.inspection import KINDS, QUESTIONS, RECORD_SCHEMA, RECORDS, Part
from edgevlm_export.inspection.parts import COLOURS, DEFECTS, LOCATIONS, MOST_FIXTURES
from edgevlm_runtime.form import Form
from edgevlm_runtime.text.constraint import JSON_LAYOUT

PARTS = st.integers(0, 101_999_999).map(inspection.part)


@given(PARTS)
def test_the_record_says_what_the_single_answers_say(part: Part) -> None:
    (text,) = {question.answer(part) for question in RECORDS}
    record = json.loads(text)
    for field, kind in {"defect": "type", "location": "location", "colour": "colour", "code": "code"}.items():
        said = QUESTIONS[kind][0].answer(part)
        assert record[field] == (None if said in ("none", "nowhere") else said)
    for field in ("holes", "screws"):
        assert str(record[field]) == QUESTIONS[field][0].answer(part)
    assert list(record) == list(RECORD_SCHEMA["properties"])


@given(PARTS)
def test_it_is_written_as_the_runtimes_forms_write_json(part: Part) -> None:
    text = RECORDS[0].answer(part)
    spaced = json.dumps(json.loads(text), separators=(JSON_LAYOUT["item_separator"], JSON_LAYOUT["key_separator"]))
    assert text == spaced
    assert Form.json(RECORD_SCHEMA).parse(text) == json.loads(text)


def test_the_schema_allows_what_is_drawn_and_nothing_else() -> None:
    valid = jsonschema_rs.validator_for(RECORD_SCHEMA)
    texts = [RECORDS[0].answer(inspection.part(seed)) for seed in range(400)]
    assert all(valid.is_valid(json.loads(text)) for text in texts)
    one = json.loads(texts[0])
    wrong: list[dict[str, object]] = [
        {"defect": "rust"},
        {"location": "nowhere"},
        {"holes": MOST_FIXTURES + 1},
        {"screws": "2"},
        {"code": "P4"},
        {"code": "none"},
        {"colour": None},
        {"more": 1},
    ]
    assert [change for change in wrong if valid.is_valid({**one, **change})] == []


def test_every_value_occurs() -> None:
    records = [json.loads(RECORDS[0].answer(inspection.part(seed))) for seed in range(2000)]
    seen = {field: {record[field] for record in records} for field in records[0]}
    assert seen["defect"] == {*DEFECTS, None}
    assert seen["location"] == {*(name for row in LOCATIONS for name in row), None}
    assert seen["holes"] == seen["screws"] == set(range(MOST_FIXTURES + 1))
    assert seen["colour"] == set(COLOURS)
    assert None in seen["code"]


def test_records_are_asked_about_the_parts_of_the_other_questions() -> None:
    asked = list(inspection.records("test", 60))
    assert [example.part.seed for example in asked] == [other.part.seed for other in inspection.examples("test", 60)]
    assert {example.kind for example in asked} == {"record"}
    assert Counter(example.question for example in asked).keys() == {question.text for question in RECORDS}
    assert all(example.answer == RECORDS[0].answer(example.part) for example in asked)


def test_a_record_may_follow_another_question() -> None:
    first, second, third = list(inspection.records("validation", 3, questions_per_image=2))
    assert (first.kind in KINDS, second.kind, third.kind in KINDS) == (True, "record", True)
    assert first.image is second.image
    assert third.part.seed == first.part.seed + 1


def test_asking_for_records_leaves_the_other_questions_as_they_were() -> None:
    part = inspection.part(7)
    before = [(question.kind, question.text) for question in inspection.ask(part)]
    inspection.ask_record(part)
    assert [(question.kind, question.text) for question in inspection.ask(part)] == before
    assert "record" not in KINDS
    others = {question.text for questions in QUESTIONS.values() for question in questions}
    assert not others & {question.text for question in RECORDS}


def test_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None;"
        "from edgevlm_export import inspection; print(next(inspection.records()).answer)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == next(inspection.records()).answer
