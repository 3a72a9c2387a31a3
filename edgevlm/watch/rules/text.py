"""A question that is answered in words: the first pattern found in them says the verdict.

    [[question]]
    name = "label"
    kind = "text"
    text = "What does the label say?"
    patterns = [{ match = "(?i)exp.* 20(2[6-9]|3.)", verdict = "ok" }]
    otherwise = "reject"

Without patterns the answer is recorded, and decides nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgevlm.watch.rules.base import UNSURE, Judged, Rule
from edgevlm.watch.rules.generated import check_generated, check_word, say, without_unsure
from edgevlm_runtime import Session
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

LONGEST = 4000
"""Characters of an answer in which patterns are looked for, and of a pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What may stand in an answer. Raises `EdgeVLMError` for what is no regular expression."""

    match: str
    """A regular expression of Python's `re`, found anywhere in the answer; `(?i)` before it ignores case."""
    verdict: str

    def __post_init__(self) -> None:
        sound = isinstance(self.match, str) and 0 < len(self.match) <= LONGEST
        need(sound, "match", self.match, f"a regular expression of 1 to {LONGEST} characters")
        check_word("verdict", self.verdict)
        try:
            re.compile(self.match)
        except (re.error, OverflowError, RecursionError) as error:
            raise EdgeVLMError(f"bad value for match: {self.match!r} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The question's part of a plan. Raises `EdgeVLMError` for bad values."""

    patterns: tuple[Pattern, ...] = ()
    """Tried in this order; the first that is found gives its verdict."""
    otherwise: str = UNSURE
    """The verdict where none is found."""
    max_new_tokens: int = 64
    """The answer ends here at the latest."""
    at_least: float | None = None
    """Least mean probability of the answer's tokens (their geometric mean); below it the verdict is "unsure"."""
    verdict: bool = True
    """Whether the answer decides; otherwise it is recorded, and nothing follows from it."""

    def __post_init__(self) -> None:
        check_word("otherwise", self.otherwise)
        check_generated(self.max_new_tokens, self.at_least)


def make_rule(options: Options) -> Rule:
    """The rule of such a question."""
    return _Text(options, tuple((re.compile(one.match), one.verdict) for one in options.patterns))


@dataclass(frozen=True, slots=True)
class _Text:
    options: Options
    patterns: tuple[tuple[re.Pattern[str], str], ...]

    @property
    def words(self) -> tuple[str, ...]:
        if not (self.options.verdict and self.patterns):
            return ()
        return without_unsure([*(word for _, word in self.patterns), self.options.otherwise])

    def check(self, session: Session, question: str) -> None:
        say(session, question, 1, None)

    def judge(self, session: Session, question: str) -> Judged:
        said = say(session, question, self.options.max_new_tokens, self.options.at_least)
        verdict = self._verdict(said.answer.text) if said.sure else UNSURE
        return Judged(
            verdict=verdict if self.words else "",
            answer=said.answer.text,
            probability=said.probability,
            tokens=said.answer.token_ids,
        )

    def _verdict(self, text: str) -> str:
        found = (word for pattern, word in self.patterns if pattern.search(text[:LONGEST]))
        return next(found, self.options.otherwise)
