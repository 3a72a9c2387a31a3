"""The comparison sees what it should: a check that cannot fail proves nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.arm64.comparing import TOLERANCE, Answered, Record, Weighed, differences, largest_gaps
from tests.arm64.cores import CORES, Core

PLAIN, DOT_PRODUCT = CORES
ANSWERS = (
    Answered("1.png", "Where is the defect?", (366, 2), "right", (-0.1, -0.02)),
    Answered("1.png", "Count the holes.", (22, 2), "1", (-0.001, -0.5)),
)
VERDICTS = (Weighed("1.png", "Is the part defective?", {"yes": 0.75, "no": 0.25}),)
HERE = Record("x86_64", None, False, "1.31.1", ANSWERS, VERDICTS)


def on(core: Core, **changed: object) -> Record:
    """The same answers, given by `core`."""
    return replace(HERE, machine="aarch64", part=core.part, dot_product=core.dot_product, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_equal_answers_agree(core):
    there = on(core)
    assert differences(HERE, there, core) == []
    assert largest_gaps(HERE, there) == (0, 0)


def test_a_core_that_is_not_emulated_is_told():
    assert [found.where for found in differences(HERE, HERE, PLAIN)] == ["machine", "CPU part"]
    assert [found.where for found in differences(HERE, on(PLAIN), DOT_PRODUCT)] == ["CPU part", "dot product"]


@given(answer=st.integers(0, 1), place=st.integers(0, 1), other=st.integers(0, 1000))
def test_every_other_token_is_told(answer, place, other):
    tokens = list(ANSWERS[answer].token_ids)
    changed = tokens[place] != other
    tokens[place] = other
    answers = [*ANSWERS]
    answers[answer] = replace(ANSWERS[answer], token_ids=tuple(tokens))
    found = differences(HERE, on(PLAIN, answers=tuple(answers)), PLAIN)
    assert [difference.where for difference in found] == [f"1.png: {ANSWERS[answer].question}"] * changed


@pytest.mark.parametrize("cut", [(), ANSWERS[:1], ANSWERS[::-1], (*ANSWERS, ANSWERS[0])], ids=len)
def test_other_questions_are_told(cut):
    assert {found.where for found in differences(HERE, on(PLAIN, answers=cut), PLAIN)} == {"cases"}


def test_an_answer_with_fewer_tokens_is_told():
    cut = replace(ANSWERS[0], token_ids=(366,), logprobs=(-0.1,))
    (found,) = differences(HERE, on(PLAIN, answers=(cut, ANSWERS[1])), PLAIN)
    assert "(366, 2)" in found.here
    assert "(366,)" in found.there


def test_other_choices_are_told():
    verdicts = (replace(VERDICTS[0], probabilities={"yes": 0.75, "maybe": 0.25}),)
    assert [found.where for found in differences(HERE, on(PLAIN, verdicts=verdicts), PLAIN)] == ["cases"]


@given(st.floats(0, 0.25))
def test_a_choice_may_be_off_by_the_tolerance(off):
    verdicts = (replace(VERDICTS[0], probabilities={"yes": 0.75 + off, "no": 0.25 - off}),)
    found = differences(HERE, on(PLAIN, verdicts=verdicts), PLAIN)
    assert bool(found) == (max(abs(0.75 - (0.75 + off)), abs(0.25 - (0.25 - off))) > TOLERANCE)


@pytest.mark.parametrize("number", [math.nan, -1.0])
def test_a_token_of_another_probability_is_told(number):
    answers = (replace(ANSWERS[0], logprobs=(number, -0.02)), ANSWERS[1])
    (found,) = differences(HERE, on(PLAIN, answers=answers), PLAIN)
    assert found.where == "1.png: Where is the defect?"


def test_not_a_number_is_no_agreement():
    verdicts = (replace(VERDICTS[0], probabilities={"yes": 0.75, "no": math.nan}),)
    assert differences(HERE, on(PLAIN, verdicts=verdicts), PLAIN)


def test_nothing_compared_is_no_agreement():
    assert differences(replace(HERE, answers=()), on(PLAIN, answers=()), PLAIN)
    assert differences(replace(HERE, verdicts=()), on(PLAIN, verdicts=()), PLAIN)
