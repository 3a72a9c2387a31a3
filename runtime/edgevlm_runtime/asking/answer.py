"""What a question gets back: the text, its tokens, why it ended, and how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock times in milliseconds; a stage that did not run is 0.

    A session preprocesses its images when it is made; its first answer counts that time, in `preprocess`,
    `time_to_first_token` and `total`.
    """

    preprocess: float = 0.0
    """Decoding, resizing and arranging the images."""
    vision: float = 0.0
    """Vision encoder."""
    projector: float = 0.0
    """Projector."""
    prefill: float = 0.0
    """Decoder, over the prompt positions that were not reused."""
    decode_per_token: float = 0.0
    """Mean over the tokens after the first."""
    time_to_first_token: float = 0.0
    """From the question (and the images) to the first token."""
    total: float = 0.0
    """From the question (and the images) to the last token."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token."""

    id: int
    logprob: float | None
    """As in `Answer.logprobs`; None when they were not asked for."""
    top: tuple[tuple[int, float], ...]
    """As in `Answer.top_logprobs`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question; `str(answer)` is its text."""

    text: str
    token_ids: tuple[int, ...]
    """Every generated token, the end-of-sequence token included where there is one."""
    logprobs: tuple[float, ...]
    """For each token, the natural logarithm of the probability the model itself gave it (log-softmax of the logits,
    before temperature, penalties and truncation); empty when `logprobs=False`."""
    finish_reason: str
    """"stop" (end-of-sequence token), "length" (max_new_tokens, or the context is full), "stop_string", "cancelled"."""
    timings: Timings
    prompt_tokens: int
    """Prompt positions, image tokens included."""
    image_tokens: int
    image_cache: str
    """"hit" (no image had to be encoded), "miss" (at least one was), "none" (no image)."""
    prefix_tokens_reused: int
    """Prompt positions whose keys and values were already in the KV cache."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token, the likeliest tokens in its place with their log-probabilities, the likeliest first; empty when
    none were asked for."""

    def __str__(self) -> str:
        return self.text
