"""An answer as it goes out: one JSON object, or server-sent events."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import msgspec
from msgspec import UNSET, UnsetType

from edgevlm.serve.fields import ChatRequest
from edgevlm.serve.logprobs import finite, logprobs
from edgevlm.serve.refusals import Refusal
from edgevlm.serve.replies import (
    Chunk,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Delta,
    Extra,
    FinishReason,
    Logprobs,
    PromptDetails,
    ReplyMessage,
    Usage,
    Verdict,
)
from edgevlm.serve.work import Done, Event, Piece, Served
from edgevlm_runtime.asking.answer import Answer, Token
from edgevlm_runtime.asking.choices import Choice
from edgevlm_runtime.decoding.generate import LENGTH

END = b"data: [DONE]\n\n"


class Telling:
    """Tells one answer."""

    def __init__(self, asked: ChatRequest, served: Served) -> None:
        self._asked, self._served = asked, served
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._ends = frozenset(served.vlm.manifest.generation.eos_token_ids)

    def whole(self, done: Done, tokens: Sequence[Token]) -> bytes:
        """The answer as one object; `tokens`: all of them."""
        message = ReplyMessage(str(done.answer))
        choice = CompletionChoice(message, _reason(done.answer), self._logprobs(tokens))
        served = self._served
        return msgspec.json.encode(
            Completion(
                self._id,
                self._created,
                served.name,
                [choice],
                usage_of(done.answer),
                served.fingerprint,
                _extra(done.answer),
            )
        )

    async def events(self, first: Event, rest: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """The answer as events. What fails midway is told as an error object, for the status is out by then."""
        yield self._chunk(Delta(role="assistant", content=""))
        for one in self._told(first):
            yield one
        try:
            async for event in rest:
                for one in self._told(event):
                    yield one
        except Refusal as refusal:
            yield b"data: " + refusal.body() + b"\n\n"
        yield END

    def _told(self, event: Event) -> list[bytes]:
        if isinstance(event, Piece):
            return [self._chunk(Delta(content=event.text), tokens=event.tokens)]
        if not isinstance(event, Done):
            raise event
        told = []
        verdict = isinstance(event.answer, Choice)
        if verdict or self._logprobs(event.tokens):
            text = str(event.answer) if verdict else ""
            told.append(self._chunk(Delta(content=text), tokens=event.tokens))
        told.append(self._chunk(Delta(), _reason(event.answer), extra=_extra(event.answer)))
        if self._with_usage:
            told.append(self._event([], usage_of(event.answer)))
        return told

    def _chunk(
        self,
        delta: Delta,
        reason: FinishReason | None = None,
        tokens: Sequence[Token] = (),
        extra: Extra | UnsetType = UNSET,
    ) -> bytes:
        choice = ChunkChoice(delta, reason, self._logprobs(tokens) if tokens else None)
        return self._event([choice], None if self._with_usage else UNSET, extra)

    def _event(
        self, choices: list[ChunkChoice], usage: Usage | UnsetType | None, extra: Extra | UnsetType = UNSET
    ) -> bytes:
        served = self._served
        chunk = Chunk(self._id, self._created, served.name, choices, served.fingerprint, usage, extra)
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    @property
    def _with_usage(self) -> bool:
        options = self._asked.stream_options
        return options is not None and bool(options.include_usage)

    def _logprobs(self, tokens: Sequence[Token]) -> Logprobs | None:
        if not self._asked.logprobs:
            return None
        return logprobs(tokens, self._served.vlm.tokenizer, self._ends)


def usage_of(answer: Answer | Choice) -> Usage:
    """Tokens of an answer; a verdict generates none."""
    new = len(answer.token_ids) if isinstance(answer, Answer) else 0
    prompt = answer.prompt_tokens
    return Usage(prompt, new, prompt + new, PromptDetails(answer.prefix_tokens_reused))


def _reason(answer: Answer | Choice) -> FinishReason:
    return "length" if isinstance(answer, Answer) and answer.finish_reason == LENGTH else "stop"


def _extra(answer: Answer | Choice) -> Extra:
    timings = {name: round(value, 3) for name, value in asdict(answer.timings).items()}
    verdict = _verdict(answer) if isinstance(answer, Choice) else UNSET
    return Extra(timings, answer.image_tokens, answer.image_cache, verdict)


def _verdict(choice: Choice) -> Verdict:
    scores = {text: finite(score) for text, score in choice.scores.items()}
    return Verdict(choice.text, choice.best, choice.probabilities, scores, choice.mass)
