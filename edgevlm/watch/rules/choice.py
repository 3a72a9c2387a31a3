"""A question with a few possible answers: how probable each is, without generating any of them.

[[question]]
name = "scratch"
text = "Is there a scratch?"
choices = ["yes", "no"]
verdicts = { yes = "reject", no = "ok" }
at_least = 0.8                              # less sure than that: "unsure"
take_at = { yes = 0.3 }                     # but a scratch is believed from 0.3 on, even where "no" is likelier
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgevlm.watch.rules.base import UNSURE, Judged, Rule
from edgevlm.watch.rules.generated import check_word, without_unsure
from edgevlm_runtime import Session
from edgevlm_runtime.asking.choices import check_choices
from edgevlm_runtime.options import is_real, need

SHARE = "a number from 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The question's part of a plan. Raises `EdgeVLMError` for bad values."""

    choices: tuple[str, ...]
    """The answers, two at least; probabilities are among these alone."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Choice to verdict; a choice that is not here is its own verdict."""
    at_least: float = 0.5
    """The likeliest choice is the answer from this probability on; below it the verdict is "unsure"."""
    take_at: dict[str, float] = field(default_factory=dict)
    """Choice to the probability that it needs in place of `at_least`. One that has it is the answer, even where another
    is likelier (of several the first here); one that does not is no answer, even where it is the likeliest."""
    verdict: bool = True
    """Whether the answer decides; otherwise it is recorded, and nothing follows from it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", check_choices(self.choices))
        need(is_real(self.at_least) and 0 <= self.at_least <= 1, "at_least", self.at_least, SHARE)
        known = "choices as keys: " + ", ".join(self.choices)
        for name, table in (("verdicts", self.verdicts), ("take_at", self.take_at)):
            need(set(table) <= set(self.choices), name, table, known)
        for word in self.verdicts.values():
            check_word("verdicts", word)
        for share in self.take_at.values():
            need(is_real(share) and 0 <= share <= 1, "take_at", share, SHARE)


def make_rule(options: Options) -> Rule:
    """The rule of such a question."""
    return _Choice(options)


@dataclass(frozen=True, slots=True)
class _Choice:
    options: Options

    @property
    def words(self) -> tuple[str, ...]:
        if not self.options.verdict:
            return ()
        return without_unsure([self._word(choice) for choice in self.options.choices])

    def check(self, session: Session, question: str) -> None:
        session.choose(question, self.options.choices)

    def judge(self, session: Session, question: str) -> Judged:
        chosen = session.choose(question, self.options.choices)
        answer, sure = self._taken(chosen.best, chosen.probabilities)
        verdict = self._word(answer) if sure else UNSURE
        return Judged(
            verdict=verdict if self.options.verdict else "",
            answer=answer,
            probability=chosen.probabilities[answer],
            probabilities=chosen.probabilities,
        )

    def _taken(self, best: str, probabilities: Mapping[str, float]) -> tuple[str, bool]:
        """The answer, and whether it is sure enough."""
        for choice, needed in self.options.take_at.items():
            if probabilities[choice] >= needed:
                return choice, True
        return best, best not in self.options.take_at and probabilities[best] >= self.options.at_least

    def _word(self, choice: str) -> str:
        return self.options.verdicts.get(choice, choice)
