"""Whole conversations, each given from its beginning, as clients of a server give them.

    conversations = vlm.conversations(contexts=4)
    part = {"type": "image", "image": "part.png"}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "Is there a scratch?"}]}]
    answer = conversations.ask(messages)
    with conversations.stream(messages) as stream:
        for piece in stream: ...

A few KV caches are kept between conversations. One that begins as an earlier one did (its system prompt, images, turns)
goes on with that one's keys and values: who asks again about a picture pays what a session's second question costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from edgevlm_runtime.asking.answer import Answer, Token
from edgevlm_runtime.asking.choices import Choice, ChoiceOptions, check_choices
from edgevlm_runtime.asking.pictures import PreparedPictures
from edgevlm_runtime.asking.prompt_run import PromptRun
from edgevlm_runtime.asking.question import Question
from edgevlm_runtime.bundle.values import generation_options
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError, PromptError
from edgevlm_runtime.options import GenerationOptions, make_options
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.text.layout import Prompt
from edgevlm_runtime.text.messages import Message
from edgevlm_runtime.vision.encoder import ImageInput


class Conversations:
    """Answers conversations, in as many threads as there are KV caches. Made by `VLM.conversations`."""

    def __init__(self, pipeline: Pipeline, contexts: int) -> None:
        """`contexts`: KV caches kept, each for one conversation at a time."""
        self._pipeline = pipeline
        self._pool = ContextPool(pipeline, contexts)
        self._pictures = PreparedPictures(pipeline)

    def ask(self, messages: Sequence[Message], *, cancel: threading.Event | None = None, **generation: Any) -> Answer:
        """The next turn. Image parts carry their picture: `{"type": "image", "image": ImageSource}`.

        `generation`: fields of `GenerationOptions`. Waits while every KV cache is in use. Raises `PromptError`,
        `ImageError`, `ContextOverflow`, and `EdgeVLMError` for bad options.
        """
        with self.stream(messages, cancel=cancel, **generation) as stream:
            for _ in stream:
                pass
            return stream.answer

    def stream(
        self, messages: Sequence[Message], *, cancel: threading.Event | None = None, **generation: Any
    ) -> ConversationStream:
        """As `ask`, piece by piece. It has its KV cache from `with` on until it is closed; read it without long
        pauses, for others wait."""
        return ConversationStream(self, *self._prepared(messages, cancel, generation))

    def choose(
        self,
        messages: Sequence[Message],
        choices: Sequence[str],
        *,
        cancel: threading.Event | None = None,
        **weighing: Any,
    ) -> Choice:
        """How probable each of `choices` is as the next turn (`asking.choices`). Raises as `Session.choose` does."""
        options = make_options(ChoiceOptions, weighing, "choice option")
        texts = check_choices(choices)
        options = replace(options, temperature=options.temperature or self._pipeline.choice_temperature)
        run, prompt, told, images, spent = self._prepared(messages, cancel, {})
        with self._pool.lease(prompt) as context:
            run.enter(context, told, images, spent, prompt)
            return run.choose(texts, options)

    def _prepared(
        self, messages: Sequence[Message], cancel: threading.Event | None, generation: dict[str, Any]
    ) -> tuple[PromptRun, Prompt, list[Message], list[ImageInput], float]:
        begun = time.perf_counter()
        options: GenerationOptions = generation_options(self._pipeline.manifest.generation, generation)
        told, pictures = _apart(messages)
        images = [self._pictures.get(picture) for picture in pictures]
        prompt = self._pipeline.assemble(told, images, self._pipeline.context_tokens)
        question = Question("", options=options, caller=cancel)
        run = PromptRun(self._pipeline, question, lambda *_: None)
        return run, prompt, told, images, (time.perf_counter() - begun) * 1e3


class ConversationStream:
    """An iterator over the pieces of an answer. Use it in a `with` block."""

    def __init__(
        self,
        conversations: Conversations,
        run: PromptRun,
        prompt: Prompt,
        told: list[Message],
        images: list[ImageInput],
        spent: float,
    ) -> None:
        self.prompt_tokens = len(prompt)
        self._run = run
        self._lease = conversations._pool.lease(prompt)
        self._begin = (told, images, spent, prompt)

    def __enter__(self) -> Self:
        self._run.enter(self._lease.__enter__(), *self._begin)
        self._pieces = self._run.pieces()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pieces.close()
        self._lease.__exit__(kind, error, at)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def cancel(self) -> None:
        """End the answer after the token being computed; from any thread."""
        self._run.cancel()

    def tokens(self, start: int = 0) -> list[Token]:
        """The tokens of the pieces so far, and of text still held back, from the `start`-th on."""
        return self._run.tokens(start)

    @property
    def answer(self) -> Answer:
        """The answer. Raises `EdgeVLMError` while it is not finished."""
        if self._run.answer is None:
            raise EdgeVLMError("the answer is not finished: read the stream to its end first")
        return self._run.answer


class ContextPool:
    """KV caches that wait for the next prompt which begins as what they hold."""

    def __init__(self, pipeline: Pipeline, most: int) -> None:
        if most < 1:
            raise EdgeVLMError(f"bad value for contexts: {most}: it must be at least 1")
        self._pipeline = pipeline
        self._most = most
        self._idle: list[Context] = []
        """Least recently used first."""
        self._made = 0
        self._changed = threading.Condition()

    @contextmanager
    def lease(self, prompt: Prompt) -> Iterator[Context]:
        """The KV cache that is best for `prompt`, for as long as the block runs. Waits while all are in use."""
        context = self._take(prompt)
        try:
            yield context
        finally:
            with self._changed:
                self._idle.append(context)
                self._changed.notify()

    def _take(self, prompt: Prompt) -> Context:
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._made < self._most)
            place = self._best(prompt)
            if place is not None:
                return self._idle.pop(place)
            self._made += 1
        try:
            return self._pipeline.new_context()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise

    def _best(self, prompt: Prompt) -> int | None:
        """Which idle one to take: one that goes on with this conversation; None for a new one. A new one is worth its
        memory when taking that one would throw more away than it saves, and something must go when there can be none:
        what was used longest ago."""
        shared = [context.shared_prefix(prompt) for context in self._idle]
        longest, full = max(shared, default=0), self._made >= self._most
        place = shared.index(longest) if longest > min(shared, default=0) else 0  # least recently used: no one goes on
        worth = bool(shared) and 2 * longest > self._idle[place].length
        return place if full or worth else None


def _apart(messages: Sequence[Message]) -> tuple[list[Message], list[Any]]:
    """Messages as the chat template takes them, and the pictures of their image parts, in order."""
    pictures: list[Any] = []

    def without(part: Any) -> Any:
        if not isinstance(part, Mapping) or part.get("type") != "image":
            return part
        if set(part) != {"type", "image"}:
            raise PromptError('an image part must be {"type": "image", "image": PICTURE}, nothing else')
        pictures.append(part["image"])
        return {"type": "image"}

    told: list[Message] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = [without(part) for part in content] if isinstance(content, list | tuple) else content
        told.append({**message, "content": parts} if isinstance(message, Mapping) else message)
    return told, pictures
