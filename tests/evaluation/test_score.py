"""Counting right answers and flips."""

from __future__ import annotations

import pytest

from edgevlm.evaluation.answerers import Given
from edgevlm.evaluation.datasets import Case
from edgevlm.evaluation.score import by_kind, outcomes, score


def case(name: str, answer: str | None, kind: str = "k") -> Case:
    return Case(name, (), name, "?", answer, kind)


CASES = [
    case("a", "yes"),
    case("b", "no"),
    case("c", "red", "colour"),
    case("d", None, "colour"),
    case("e", "3", "count"),
]
OURS = {"a": "yes", "b": "yes", "c": " red  ", "d": "blue", "e": "4"}
THEIRS = {"a": "yes", "b": "no", "c": "red", "d": "green", "e": "5"}


def given(answers: dict[str, str]) -> dict[str, Given]:
    return {name: Given(name, text, tuple(text.encode())) for name, text in answers.items()}


def test_counts() -> None:
    results = outcomes(CASES, {"edgevlm": given(OURS), "reference": given(THEIRS)}, "exact")
    scores = score(results)
    assert scores.n == 5
    assert scores.exact_match == {"edgevlm": pytest.approx(2 / 4), "reference": pytest.approx(3 / 4)}
    assert (scores.flips, scores.flip_rate) == (3, pytest.approx(3 / 5))
    assert [result.id for result in results if result.flipped] == ["b", "d", "e"]
    assert (scores.broken, scores.fixed) == (1, 0), "between wrong answers, and where nobody knows, is neither"
    assert scores.same_tokens == 1
    kinds = by_kind(results)
    assert list(kinds) == ["k", "colour", "count"]
    assert (kinds["colour"].n, kinds["colour"].exact_match["edgevlm"], kinds["colour"].flips) == (2, 1.0, 1)


def test_without_a_reference() -> None:
    scores = score(outcomes(CASES, {"edgevlm": given(OURS)}, "exact"))
    assert scores.exact_match == {"edgevlm": pytest.approx(2 / 4), "reference": None}
    assert (scores.flips, scores.flip_rate, scores.same_tokens) == (None, None, None)


def test_loose_matching() -> None:
    ours = {"edgevlm": given({"a": "Yes.", "b": "NO!"})}
    assert score(outcomes(CASES[:2], ours, "loose")).exact_match["edgevlm"] == 1.0
    assert score(outcomes(CASES[:2], ours, "exact")).exact_match["edgevlm"] == 0.0


def test_an_error_is_wrong_and_a_flip() -> None:
    ours = {"a": Given("a", error="not an image")}
    (result,) = outcomes(CASES[:1], {"edgevlm": ours, "reference": given({"a": "yes"})}, "exact")
    assert result.right is False
    assert result.flipped
    assert result.error == "not an image"
    assert score([result]).errors == 1
    both = {"edgevlm": ours, "reference": {"a": Given("a", error="neither")}}
    assert not outcomes(CASES[:1], both, "exact")[0].flipped
