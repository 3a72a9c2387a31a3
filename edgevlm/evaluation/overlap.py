"""Finer counts than right and wrong: token F1 of each answer, precision and recall of each of a few answers.

Token F1 is SQuAD's (Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016): the
harmonic mean of precision and recall of the words in common, each counted as often as it is there, after case,
punctuation, the articles a, an, the, and white space are taken out. Where one text has no words left, it is 1 when
neither has, else 0, as in the official script of SQuAD 2.0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgevlm.evaluation.score import MATCHERS, Outcome

MOST_ANSWERS = 12
"""A kind of question with more right answers than this is no choice among a few."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """How one of a few answers is given: null where there is nothing to share."""

    n: int
    """Cases whose right answer it is."""
    given: int
    """Cases, of those whose right answer is known, in which the bundle gives it."""
    precision: float | None
    """Share of right ones among those given."""
    recall: float | None
    """Share of those given among those that are right."""
    f1: float | None
    """Harmonic mean of the two."""


def words(text: str) -> list[str]:
    """What SQuAD compares."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def token_f1(answer: str, expected: str) -> float:
    """From 0, no word in common, to 1."""
    ours, theirs = words(answer), words(expected)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def mean_f1(results: Sequence[Outcome], text: Callable[[Outcome], str | None]) -> float | None:
    """Over the cases whose answer is known; one that could not be asked counts 0. `text`: whose answers."""
    known = [
        0.0 if one.error or text(one) is None else token_f1(text(one) or "", one.expected)
        for one in results
        if one.expected is not None
    ]
    return sum(known) / len(known) if known else None


def by_answer(results: Sequence[Outcome], matcher: str) -> dict[str, dict[str, AnswerScore]]:
    """Of each kind of question with a few answers: its answers, in the order in which they first appear."""
    same, kinds = MATCHERS[matcher], dict[str, list[tuple[str, str | None]]]()
    for one in results:
        if one.expected is not None:
            given = None if one.error else same(one.edgevlm)
            kinds.setdefault(one.kind, []).append((same(one.expected), given))
    scored = {}
    for kind, pairs in kinds.items():
        answers = list(dict.fromkeys(expected for expected, _ in pairs))
        if 2 <= len(answers) <= MOST_ANSWERS:
            scored[kind] = {answer: _score(answer, pairs) for answer in answers}
    return scored


def _score(answer: str, pairs: Sequence[tuple[str, str | None]]) -> AnswerScore:
    n = sum(expected == answer for expected, _ in pairs)
    given = sum(said == answer for _, said in pairs)
    right = sum(expected == said == answer for expected, said in pairs)
    return AnswerScore(n, given, right / given if given else None, right / n, 2 * right / (n + given))
