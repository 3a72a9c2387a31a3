"""What rules share that let the model say something."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from edgevlm.watch.rules.base import UNSURE
from edgevlm_runtime import Answer, Session
from edgevlm_runtime.options import is_real, need


def check_word(name: str, word: object) -> None:
    """Raise `EdgeVLMError` for what is no verdict."""
    need(isinstance(word, str) and word.strip() != "", name, word, "a word")


def check_generated(max_new_tokens: object, at_least: object) -> None:
    """Raise `EdgeVLMError` for bad options of these names."""
    whole = isinstance(max_new_tokens, int) and not isinstance(max_new_tokens, bool) and max_new_tokens >= 1
    need(whole, "max_new_tokens", max_new_tokens, "a whole number of at least 1")
    share = at_least is None or (is_real(at_least) and 0 <= at_least <= 1)  # type: ignore[operator]
    need(share, "at_least", at_least, "a number from 0 to 1")


def without_unsure(words: list[str]) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(word for word in dict.fromkeys(words) if word != UNSURE)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and whether it is sure enough."""

    answer: Answer
    probability: float | None
    """Geometric mean of the probabilities that the model gave to the answer's tokens, where that was asked for."""
    sure: bool


def say(session: Session, question: str, max_new_tokens: int, at_least: float | None) -> Said:
    """The likeliest answer, word by word. Raises as `Session.ask` does."""
    answer = session.ask(question, max_new_tokens=max_new_tokens, temperature=0.0, logprobs=at_least is not None)
    if at_least is None:
        return Said(answer, None, True)
    probability = exp(sum(answer.logprobs) / len(answer.logprobs)) if answer.logprobs else 0.0
    return Said(answer, probability, probability >= at_least)
