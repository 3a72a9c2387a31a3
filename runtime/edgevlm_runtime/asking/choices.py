"""Verdicts: how probable a model finds each of a few given answers.

A choice's score is the log-probability of its tokens after the prompt. The prompt is prefilled once; each choice is
then run over the same KV cache in one pass and forgotten again. Scores are normalised over the choices:

    probability = softmax(score / temperature)

*Length.* A score is a sum over tokens, so of two answers that are equally natural the longer one scores lower. That is
the model's own probability of saying exactly this, and nothing is corrected for length: word choices alike. A fitted
temperature (`edgevlm eval --fit-calibration`) makes probabilities honest, it does not change the order.

*End of the answer.* Where no choice is the beginning of another, its tokens alone count, so that "yes" covers what the
model would have said after it. Where one is ("1" and "10"), the end-of-sequence token counts for every choice, since
"1" would otherwise contain "10".

*Leading space.* Models trained with a space after the prompt's last word answer " yes", others "yes". All choices are
taken in the form whose first tokens the model finds more probable together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.asking.answer import Timings
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.errors import ContextOverflow, EdgeVLMError, PromptError
from edgevlm_runtime.options import is_real, need
from edgevlm_runtime.text.layout import Prompt
from edgevlm_runtime.text.prompt import PromptEncoder

FORMS = ("", " ")
"""What may stand before a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOptions:
    """How choices are weighed. Raises `EdgeVLMError` for bad values."""

    temperature: float | None = None
    """Above 1 brings probabilities closer together, below 1 pulls them apart; the order stays. None takes the one that
    was fitted for the bundle (`edgevlm_runtime.bundle.choice_temperature`), or 1."""
    abstain_below: float = 0.0
    """Give no verdict when the likeliest choice is less probable than this."""
    end: bool | None = None
    """Whether the end-of-sequence token counts; None decides as the module's docstring says."""

    def __post_init__(self) -> None:
        warmth, least = self.temperature, self.abstain_below
        need(warmth is None or (is_real(warmth) and warmth > 0), "temperature", warmth, "above 0, or None")
        need(is_real(least) and 0 <= least <= 1, "abstain_below", least, "from 0 to 1")
        need(self.end is None or isinstance(self.end, bool), "end", self.end, "True, False or None")


@dataclass(frozen=True, slots=True)
class Choice:
    """A verdict; `str(choice)` is its text."""

    text: str | None
    """The likeliest choice, or None when it is less probable than `abstain_below`."""
    best: str
    """The likeliest choice in any case."""
    probabilities: dict[str, float]
    """Of each choice, in the order given; they add up to 1."""
    scores: dict[str, float]
    """Log-probability of each choice's tokens, before temperature and normalisation."""
    mass: float
    """Probability the model gives to all choices together. Small: it wanted to say something else."""
    timings: Timings
    prompt_tokens: int
    image_tokens: int
    image_cache: str
    prefix_tokens_reused: int

    def __str__(self) -> str:
        return self.text or ""


MOST_CHOICES = 1000
"""Each is run through the decoder in two spellings."""


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, stripped. Raises `EdgeVLMError` when there are fewer than two, or two are equal."""
    texts = isinstance(choices, (list, tuple)) and all(isinstance(choice, str) for choice in choices)
    if not texts:
        raise EdgeVLMError(f"choices must be a list of texts, not {choices!r}")
    if len(choices) > MOST_CHOICES:
        raise EdgeVLMError(f"{len(choices)} choices are too many: {MOST_CHOICES} at most")
    stripped = tuple(choice.strip() for choice in choices)
    if len(stripped) < 2 or not all(stripped):
        raise EdgeVLMError(f"at least two choices are needed, none of them empty: got {list(choices)}")
    if len(set(stripped)) < len(stripped):
        raise EdgeVLMError(f"choices must differ: got {list(choices)}")
    return stripped


def score_choices(
    choices: tuple[str, ...],
    prompt: Prompt,
    encoder: PromptEncoder,
    logits: Logits,
    context: Context,
    ends: tuple[int, ...],
    count_end: bool | None,
) -> NDArray[np.float64]:
    """Log-probability of each choice [n] after `prompt`, which `context` holds and whose last logits are `logits`.

    `ends`: end-of-sequence tokens. The context holds the prompt, and nothing else, when this returns.
    """
    for choice in choices:
        encoder.check_length(choice, context.capacity)
        _check_plain(choice, encoder)
    first = log_softmax(logits)
    vocab = first.size
    forms = [[continuation(prompt, form + choice, encoder) for choice in choices] for form in FORMS]
    for choice, ids in zip(choices * len(FORMS), chain.from_iterable(forms), strict=True):
        if not ids or not 0 <= min(ids) <= max(ids) < vocab:
            raise PromptError(f"choice {choice!r} has no tokens that the decoder knows: word it otherwise")
    tokens = max(forms, key=lambda form: float(np.logaddexp.reduce(first[sorted({ids[0] for ids in form})])))
    if len(set(tokens)) < len(tokens):
        raise EdgeVLMError(f"choices {list(choices)} do not differ in this model's tokens: word them otherwise")
    end = bool(ends) and (_one_begins_another(tokens) if count_end is None else count_end)
    longest = max(len(ids) for ids in tokens)
    if longest > context.capacity - context.length:
        raise ContextOverflow(f"prompt and choices need {context.length + longest} tokens: shorten the choices")
    scores = np.array([_score(ids, first, context, ends if end else ()) for ids in tokens])
    if scores.max() == -np.inf:
        raise EdgeVLMError(f"choices {list(choices)} are all impossible to this model: word them otherwise")
    return scores


def continuation(prompt: Prompt, text: str, encoder: PromptEncoder) -> tuple[int, ...]:
    """Tokens of `text` after the prompt: as tokenized together, unless that changes the prompt's own tokens."""
    together = encoder.tokenize(replace(prompt.source, text=prompt.source.text + text))
    start = len(prompt.token_ids)
    own = len(together) > start and np.array_equal(together[:start], prompt.token_ids)
    if own:
        return tuple(together[start:])
    return tuple(encoder.tokenizer.encode(text, bos_token=""))  # every text begins with "": no special tokens


def weigh(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities [n] that add up to 1."""
    # The likeliest is brought to 0 first, so that no temperature can carry it to infinity.
    with np.errstate(over="ignore"):
        warmed = (scores - scores.max()) / temperature
    probabilities: NDArray[np.float64] = np.exp(log_softmax(warmed))
    return probabilities


def verdict(choices: Sequence[str], scores: NDArray[np.float64], options: ChoiceOptions, **more: Any) -> Choice:
    """The choice that scores say; `more`: the remaining fields of `Choice`."""
    probabilities = weigh(scores, options.temperature or 1.0)
    best = int(np.argmax(scores))  # a high temperature leaves no difference between probabilities
    sure = probabilities[best] >= options.abstain_below
    return Choice(
        text=choices[best] if sure else None,
        best=choices[best],
        probabilities=dict(zip(choices, probabilities.tolist(), strict=True)),
        scores=dict(zip(choices, scores.tolist(), strict=True)),
        mass=float(np.exp(np.logaddexp.reduce(scores))),
        **more,
    )


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Along the last axis, in float64."""
    wide = logits.astype(np.float64)
    result: NDArray[np.float64] = wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)
    return result


def _check_plain(choice: str, encoder: PromptEncoder) -> None:
    """Raise `PromptError` for a choice that is not text alone."""
    special = encoder.tokenizer.special_ids | {encoder.format.image_token_id}
    if special & set(encoder.tokenizer.encode(choice, bos_token="")):
        raise PromptError(f"choice {choice!r} contains a special token of the model: take it out")


def _score(tokens: tuple[int, ...], first: NDArray[np.float64], context: Context, ends: tuple[int, ...]) -> float:
    fed = tokens if ends else tokens[:-1]
    if not fed:
        return float(first[tokens[0]])
    after = log_softmax(context.peek(np.array(fed, dtype=np.int64)))
    rows = [first, *after]
    score = sum(float(row[token]) for row, token in zip(rows, tokens, strict=False))
    return score + float(np.logaddexp.reduce(rows[len(tokens)][list(ends)])) if ends else score


def _one_begins_another(tokens: Sequence[tuple[int, ...]]) -> bool:
    return any(a is not b and b[: len(a)] == a for a in tokens for b in tokens)
