"""What is answered, as OpenAI's clients read it; `edgevlm` objects hold what theirs have no place for."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

FinishReason = Literal["stop", "length"]


class TopLogprob(Struct, frozen=True):
    """One of the likeliest tokens in a place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct, frozen=True):
    """A generated token."""

    token: str
    logprob: float
    bytes: list[int] | None
    """Of its text; null where a tokenizer does not tell which bytes of a character a token has."""
    top_logprobs: list[TopLogprob]


class Logprobs(Struct, frozen=True):
    """Of every token of the text, before temperature and penalties."""

    content: list[TokenLogprob]
    refusal: None = None


class Verdict(Struct, frozen=True):
    """What `choices_of` found."""

    text: str | None
    """The likeliest choice; null when it is less probable than `abstain_below`."""
    best: str
    probabilities: dict[str, float]
    """Calibrated where the bundle has a fit; they add up to 1."""
    scores: dict[str, float]
    """Log-probability of each choice's tokens."""
    mass: float
    """Probability the model gives to all choices together."""


class Extra(Struct, frozen=True):
    """What only edgevlm tells."""

    timings_ms: dict[str, float]
    image_tokens: int
    image_cache: str
    """"hit", "miss" or "none"."""
    verdict: Verdict | UnsetType = UNSET


class PromptDetails(Struct, frozen=True):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Those whose keys and values were known from an earlier request."""


class Usage(Struct, frozen=True):
    """Tokens, those of images included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ReplyMessage(Struct, frozen=True):
    """What the model says."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class CompletionChoice(Struct, frozen=True):
    """The one answer."""

    message: ReplyMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None = None
    index: int = 0


class Completion(Struct, frozen=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str
    edgevlm: Extra
    object: Literal["chat.completion"] = "chat.completion"


class Delta(Struct, frozen=True, omit_defaults=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """A piece of the one answer."""

    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None
    index: int = 0


class Chunk(Struct, frozen=True):
    """One event of a stream."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
    """With `stream_options.include_usage`: null, and in the last event the tokens."""
    edgevlm: Extra | UnsetType = UNSET
    """In the event that has the finish reason."""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class ModelCard(Struct, frozen=True):
    """A bundle that is served."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "edgevlm"


class ModelList(Struct, frozen=True):
    """All of them."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class ErrorInfo(Struct, frozen=True):
    """What is wrong."""

    message: str
    kind: str = field(name="type")
    param: str | None
    """The field at fault."""
    code: str


class ErrorReply(Struct, frozen=True):
    """Every answer that is none."""

    error: ErrorInfo
