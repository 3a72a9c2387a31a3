"""Right answers, and answers that differ from the reference's, by kind of question."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgevlm.evaluation.answerers import EDGEVLM, REFERENCE, Given
from edgevlm.evaluation.datasets import Case


def exact(text: str) -> str:
    """The text, white space apart."""
    return " ".join(text.split())


def loose(text: str) -> str:
    """Also without case, and without punctuation at its ends: "Yes." is "yes"."""
    return exact(text).casefold().strip(string.punctuation + " ")


MATCHERS: dict[str, Callable[[str], str]] = {"exact": exact, "loose": loose}
"""What of a text counts, by name: two texts are the same answer when this is equal."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case with what everybody said."""

    id: str
    """Name of the case in its data set."""
    image: str
    """Name of its image."""
    kind: str
    """The kind of question."""
    question: str
    """As it was asked."""
    expected: str | None
    """The right answer, where it is known."""
    edgevlm: str
    """The bundle's answer."""
    reference: str | None
    """The PyTorch model's answer; None without a reference."""
    right: bool | None
    """Whether the bundle's answer is right; None where no answer is known."""
    reference_right: bool | None
    """Whether the reference's answer is right; None also without a reference."""
    flipped: bool
    """Whether the two answers differ."""
    same_tokens: bool | None
    """Whether their tokens are the same, one by one; None without a reference."""
    error: str | None = None
    """Why the case could not be asked."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts over some cases. Shares are None where there is nothing to share."""

    n: int
    exact_match: dict[str, float | None]
    """Share of right answers among the cases whose answer is known, of `edgevlm` and of `reference`."""
    flips: int | None
    flip_rate: float | None
    fixed: int | None
    """Flips from wrong to right; `broken` from right to wrong. The others are between wrong answers, or unknown."""
    broken: int | None
    same_tokens: int | None
    """Cases in which both gave the same tokens, one by one."""
    errors: int


def outcomes(cases: Iterable[Case], answers: Mapping[str, Mapping[str, Given]], matcher: str) -> list[Outcome]:
    """What came of each case. `answers`: by engine, then by the case's id."""
    same = MATCHERS[matcher]
    return [_outcome(case, answers[EDGEVLM][case.id], answers.get(REFERENCE, {}).get(case.id), same) for case in cases]


def _outcome(case: Case, ours: Given, theirs: Given | None, same: Callable[[str], str]) -> Outcome:
    errors = [given.error for given in (ours, theirs) if given is not None and given.error]
    return Outcome(
        id=case.id,
        image=case.image_name,
        kind=case.kind,
        question=case.question,
        expected=case.answer,
        edgevlm=ours.text,
        reference=None if theirs is None else theirs.text,
        right=_right(case, ours, same),
        reference_right=None if theirs is None else _right(case, theirs, same),
        flipped=theirs is not None and (same(ours.text) != same(theirs.text) or bool(ours.error) != bool(theirs.error)),
        same_tokens=None if theirs is None else ours.token_ids == theirs.token_ids,
        error="; ".join(errors) or None,
    )


def _right(case: Case, given: Given, same: Callable[[str], str]) -> bool | None:
    return None if case.answer is None else not given.error and same(given.text) == same(case.answer)


def score(results: Sequence[Outcome]) -> Scores:
    """Counts over `results`."""
    compared = [r for r in results if r.reference is not None]
    flipped = [r for r in compared if r.flipped]
    return Scores(
        n=len(results),
        exact_match={
            EDGEVLM: _share([r.right for r in results]),
            REFERENCE: _share([r.reference_right for r in compared]),
        },
        flips=len(flipped) if compared else None,
        flip_rate=len(flipped) / len(compared) if compared else None,
        fixed=sum(r.right is True and r.reference_right is False for r in flipped) if compared else None,
        broken=sum(r.right is False and r.reference_right is True for r in flipped) if compared else None,
        same_tokens=sum(r.same_tokens is True for r in compared) if compared else None,
        errors=sum(r.error is not None for r in results),
    )


def by_kind(results: Sequence[Outcome]) -> dict[str, Scores]:
    """Scores of each kind of question, in the order in which kinds first appear."""
    groups: dict[str, list[Outcome]] = {}
    for result in results:
        groups.setdefault(result.kind, []).append(result)
    return {kind: score(group) for kind, group in groups.items()}


def _share(verdicts: Sequence[bool | None]) -> float | None:
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(known) / len(known) if known else None
