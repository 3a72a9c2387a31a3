"""Token F1, and precision and recall by answer."""

from __future__ import annotations

import pytest

from edgevlm.evaluation.answerers import Given
from edgevlm.evaluation.datasets import Case
from edgevlm.evaluation.overlap import MOST_ANSWERS, by_answer, mean_f1, token_f1
from edgevlm.evaluation.score import Outcome, outcomes

PUBLISHED = [
    ("The Norman dynasty", "norman dynasty!", 1.0),  # case, article, punctuation
    ("in the 10th century", "10th and 11th centuries", 2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4)),
    ("red red blue", "red", 2 * (1 / 3) * 1 / (1 / 3 + 1)),  # counted as often as there
    ("", "", 1.0),
    ("the", "", 1.0),
    ("", "yes", 0.0),
    ("no", "yes", 0.0),
]


@pytest.mark.parametrize(("answer", "expected", "f1"), PUBLISHED)
def test_token_f1(answer: str, expected: str, f1: float) -> None:
    assert token_f1(answer, expected) == pytest.approx(f1)
    assert token_f1(expected, answer) == pytest.approx(f1), "symmetric"


def results(answers: list[tuple[str | None, str | None]]) -> list[Outcome]:
    """`(right, given)`; None: not known, and no answer."""
    cases = [Case(str(i), (), "i", "?", right, "colour") for i, (right, _) in enumerate(answers)]
    given = {
        str(i): Given(str(i), error="bad picture") if text is None else Given(str(i), text)
        for i, (_, text) in enumerate(answers)
    }
    return outcomes(cases, {"edgevlm": given}, "exact")


def test_precision_and_recall_of_each_answer() -> None:
    found = by_answer(
        results([("red", "red"), ("red", "blue"), ("red", None), ("blue", "blue"), ("blue", "?"), (None, "red")]),
        "exact",
    )
    assert list(found) == ["colour"]
    red, blue = found["colour"]["red"], found["colour"]["blue"]
    assert (red.n, red.given, red.precision, red.recall) == (3, 1, 1.0, pytest.approx(1 / 3))
    assert (blue.n, blue.given, blue.precision, blue.recall) == (2, 2, 0.5, 0.5)
    assert red.f1 == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))


def test_an_answer_never_given_has_no_precision() -> None:
    (answers,) = by_answer(results([("red", "blue"), ("blue", "blue")]), "exact").values()
    assert (answers["red"].precision, answers["red"].recall, answers["red"].f1) == (None, 0.0, 0.0)


def test_many_answers_are_no_few() -> None:
    assert by_answer(results([(str(i), str(i)) for i in range(MOST_ANSWERS)]), "exact")
    assert by_answer(results([(str(i), str(i)) for i in range(MOST_ANSWERS + 1)]), "exact") == {}
    assert by_answer(results([("red", "red")] * 3), "exact") == {}, "one answer is no choice"


def test_mean_f1_counts_errors_as_nothing_and_leaves_out_what_nobody_knows() -> None:
    found = results([("red car", "red"), ("red", None), (None, "red")])
    assert mean_f1(found, lambda one: one.edgevlm) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_f1([], lambda one: one.edgevlm) is None
