"""Tokens and their probabilities in OpenAI's form."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from edgevlm.serve.replies import Logprobs, TokenLogprob, TopLogprob
from edgevlm_runtime.asking.answer import Token
from edgevlm_runtime.text.tokenizer import Tokenizer

LEAST = -9999.0
"""What OpenAI writes for a token that cannot be: JSON has no infinity."""


def logprobs(tokens: Iterable[Token], tokenizer: Tokenizer, ends: Collection[int]) -> Logprobs:
    """Of every token but those that end an answer, which have no text."""
    return Logprobs([_token(one, tokenizer) for one in tokens if one.id not in ends])


def finite(value: float) -> float:
    """A logarithm that JSON can write."""
    return max(value, LEAST)


def _token(one: Token, tokenizer: Tokenizer) -> TokenLogprob:
    text, data = tokenizer.text_of(one.id)
    likeliest = [_likely(id_, value, tokenizer) for id_, value in one.top]
    return TokenLogprob(text, finite(one.logprob or 0.0), None if data is None else list(data), likeliest)


def _likely(id_: int, value: float, tokenizer: Tokenizer) -> TopLogprob:
    text, data = tokenizer.text_of(id_)
    return TopLogprob(text, finite(value), None if data is None else list(data))
