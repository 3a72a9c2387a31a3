"""Answers agree with the part and with each other."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgevlm_export import inspection
from edgevlm_export.inspection import KINDS, QUESTIONS, Part
from edgevlm_export.inspection.parts import COLOURS, DEFECTS, LOCATIONS, MOST_FIXTURES

SEEDS = st.integers(0, 101_999_999)
PARTS = SEEDS.map(inspection.part)


def answer(kind: str, part: Part) -> str:
    """The answer that every phrasing of a kind gives."""
    (only,) = {question.answer(part) for question in QUESTIONS[kind]}
    return only


@given(PARTS)
def test_yes_no_follows_the_polarity_of_the_question(part: Part) -> None:
    said = Counter(question.answer(part) for question in QUESTIONS["exists"])
    assert said == {"yes": 3, "no": 3}
    found = next(question for question in QUESTIONS["exists"] if question.text == "Is the part defective?")
    assert found.answer(part) == ("yes" if part.defect else "no")


@given(PARTS)
def test_a_good_part_has_no_type_and_no_place(part: Part) -> None:
    assert (answer("type", part) == "none") == (answer("location", part) == "nowhere") == (part.defect is None)
    assert answer("type", part) in (*DEFECTS, "none")
    assert answer("location", part) in {"nowhere", *(name for row in LOCATIONS for name in row)}


@given(PARTS)
def test_counts_and_colour_are_what_is_drawn(part: Part) -> None:
    assert answer("holes", part) == str(len(part.holes))
    assert answer("screws", part) == str(len(part.screws))
    assert answer("colour", part) == part.colour
    assert part.colour in COLOURS
    assert 0 <= len(part.holes) + len(part.screws) <= MOST_FIXTURES
    assert not (part.holes and part.screws)


@given(PARTS)
def test_code_is_a_letter_and_two_digits_or_none(part: Part) -> None:
    said = answer("code", part)
    assert said == "none" if part.label is None else said == part.label.code
    assert said == "none" or (len(said) == 3 and said[0].isalpha() and said[1:].isdigit())


@given(PARTS)
def test_the_report_says_what_the_single_answers_say(part: Part) -> None:
    finding, fixtures, colour, code = answer("report", part).split(", ")
    place = answer("location", part)
    expected = {
        "nowhere": "no defect",
        "centre": f"{answer('type', part)} in the centre",
    }.get(place, f"{answer('type', part)} at the {place}")
    assert finding == expected
    assert fixtures.split()[0] == (answer("holes", part) if part.holes else answer("screws", part))
    assert colour == f"{part.colour} part"
    assert code == ("no code" if part.code is None else f"code {part.code}")


@given(SEEDS, st.sampled_from(KINDS))
def test_every_kind_is_asked_once_and_the_wanted_one_first(seed: int, kind: str) -> None:
    asked = [question.kind for question in inspection.ask(inspection.part(seed), first=kind)]
    assert asked[0] == kind
    assert sorted(asked) == sorted(KINDS)


def test_no_phrasing_belongs_to_two_kinds() -> None:
    texts = [question.text for questions in QUESTIONS.values() for question in questions]
    assert len(texts) == len(set(texts))
    assert all(len(questions) >= 5 for questions in QUESTIONS.values())
