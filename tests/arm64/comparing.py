"""Two machines' answers side by side: tokens have to be equal, probabilities close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.arm64.cores import Core

TOLERANCE = 0.01
"""How far apart the two machines' probabilities of a token, or of a choice, may be.

int8 products are exact on every core; what differs is float32 between them, where sums are taken in another order and
a value that lies between two steps of int8 may fall to the other one.
"""


@dataclass(frozen=True)
class Answered:
    """An answer: its tokens, with the logarithm of each one's probability."""

    picture: str
    question: str
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Weighed:
    """A verdict: the probability of each choice."""

    picture: str
    question: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Record:
    """What one machine answered."""

    machine: str
    part: str | None
    dot_product: bool
    onnxruntime: str
    answers: tuple[Answered, ...]
    verdicts: tuple[Weighed, ...]


@dataclass(frozen=True)
class Difference:
    """Something that should have been the same."""

    where: str
    here: str
    there: str


def differences(here: Record, there: Record, core: Core) -> list[Difference]:
    """All that `there`, which should be `core`, did otherwise than `here`; empty when the two agree."""
    found = [*_of_machine(there, core)]
    if not here.answers or not here.verdicts:
        found.append(Difference("reference", "no answers, or no verdicts", ""))
    asked, weighed = _cases(here.answers, there.answers), _cases(here.verdicts, there.verdicts)
    found += [Difference("cases", a, b) for a, b in (*asked, *weighed) if a != b]
    if found:
        return found
    for one, other in zip(here.answers, there.answers, strict=True):
        where = f"{one.picture}: {one.question}"
        if one.token_ids != other.token_ids:
            found.append(Difference(where, f"{one.text} {one.token_ids}", f"{other.text} {other.token_ids}"))
        elif not _answer_gap(one, other) <= TOLERANCE:
            found.append(Difference(where, f"log-probabilities {one.logprobs}", f"{other.logprobs}"))
    for this, that in zip(here.verdicts, there.verdicts, strict=True):
        if not _verdict_gap(this, that) <= TOLERANCE:
            where = f"{this.picture}: {this.question}"
            found.append(Difference(where, f"{this.probabilities}", f"{that.probabilities}"))
    return found


def largest_gaps(here: Record, there: Record) -> tuple[float, float]:
    """The largest difference between probabilities of tokens, and of choices, of two records that agree."""
    answers = max(_answer_gap(*pair) for pair in zip(here.answers, there.answers, strict=True))
    verdicts = max(_verdict_gap(*pair) for pair in zip(here.verdicts, there.verdicts, strict=True))
    return answers, verdicts


def _of_machine(there: Record, core: Core) -> Iterator[Difference]:
    """Emulation that is not what it should be proves nothing."""
    if there.machine != "aarch64":
        yield Difference("machine", "aarch64", there.machine)
    if there.part != core.part:
        yield Difference("CPU part", core.part, str(there.part))
    if there.dot_product != core.dot_product:
        yield Difference("dot product", str(core.dot_product), str(there.dot_product))


def _cases(
    here: Sequence[Answered] | Sequence[Weighed], there: Sequence[Answered] | Sequence[Weighed]
) -> Iterator[tuple[str, str]]:
    """The questions of both, and of verdicts the choices, in order, as text; a case that one lacks is empty there."""
    texts = [[_case(case) for case in cases] for cases in (here, there)]
    for number in range(max(map(len, texts))):
        one, other = (text[number] if number < len(text) else "" for text in texts)
        yield one, other


def _case(case: Answered | Weighed) -> str:
    choices = f" {list(case.probabilities)}" if isinstance(case, Weighed) else ""
    return f"{case.picture}: {case.question}{choices}"


def _answer_gap(here: Answered, there: Answered) -> float:
    """Not a number where one of them has one."""
    gaps = [abs(math.exp(a) - math.exp(b)) for a, b in zip(here.logprobs, there.logprobs, strict=True)]
    return _largest(gaps)


def _verdict_gap(here: Weighed, there: Weighed) -> float:
    return _largest([abs(here.probabilities[choice] - there.probabilities[choice]) for choice in here.probabilities])


def _largest(gaps: list[float]) -> float:
    """`max` would skip what is not a number."""
    return math.nan if any(math.isnan(gap) for gap in gaps) else max(gaps)
