"""Independent questions about the same images."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.choices import Choice, ChoiceOptions, check_choices
from edgevlm_runtime.asking.prompt_run import Pieces, PromptRun
from edgevlm_runtime.asking.question import Question
from edgevlm_runtime.asking.stream import AnswerStream
from edgevlm_runtime.asking.turns import Turns
from edgevlm_runtime.bundle.values import generation_options
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import ContextOverflow
from edgevlm_runtime.images.load import ImageSources, flat, several
from edgevlm_runtime.options import make_options
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.text.prompt import Message
from edgevlm_runtime.vision.encoder import ImageInput

Prepared = tuple[tuple[ImageInput, ...], float]
"""Images ready for the encoder, and the milliseconds it took."""


class Session:
    """Independent questions about the same images. Made by `VLM.session`; use it in a `with` block, or `close` it.

    `show` changes the images and keeps the KV cache: for the frames of a camera, which have a system prompt, or golden
    pictures before them, in common.

    A session owns its KV cache; sessions of one `VLM` may run in different threads at the same time. One session may
    be shared by threads too, and answers one question at a time: `ask` and `choose` wait for each other. A stream has
    the session only while it computes a piece; a newer question, of whichever thread, takes the session over, and the
    stream then ends as "cancelled". So nobody waits for a stream that its reader has left.
    """

    def __init__(self, pipeline: Pipeline, images: ImageSources = (), system: str | None = None) -> None:
        """Prepares the images now, so that what happens to their files later does not matter.

        Raises `ImageError`, and `ContextOverflow` when the images alone exceed the context.
        """
        self._pipeline = pipeline
        self._system = pipeline.manifest.prompt.system_prompt if system is None else system
        self._images, self._preprocess_ms = self._prepare(images)
        self._last_answer: Answer | None = None
        self._turns = Turns(pipeline.new_context())

    def ask(self, question: str, *, cancel: threading.Event | None = None, **generation: Any) -> Answer:
        """Answer a question. `generation`: fields of `GenerationOptions`; `cancel`: ends the answer when set.

        Raises `EdgeVLMError` for bad options, `PromptError`, `ContextOverflow`; the session stays usable.
        """
        return self._ask(self._question(question, (self._subject(), 0.0), cancel, generation))

    def stream(self, question: str, *, cancel: threading.Event | None = None, **generation: Any) -> AnswerStream:
        """Answer a question piece by piece; pieces hold whole characters. Options and errors as for `ask`."""
        return self._stream(self._question(question, (self._subject(), 0.0), cancel, generation))

    def choose(
        self, question: str, choices: Sequence[str], *, cancel: threading.Event | None = None, **weighing: Any
    ) -> Choice:
        """How probable each of a few answers is (`asking.choices`). `weighing`: fields of `ChoiceOptions`.

        Nothing is generated, and a chat does not remember it. Raises as `ask` does, and `Cancelled`.
        """
        options = make_options(ChoiceOptions, weighing, "choice option")
        texts = check_choices(choices)
        options = replace(options, temperature=options.temperature or self._pipeline.choice_temperature)
        run = self._run(Question(question, self._subject(), caller=cancel))
        with self._turns.hold(run) as context:
            self._enter(run, context)
            return run.choose(texts, options)

    def show(self, *images: ImageSources) -> None:
        """From the next question on, the session is about these images, given as to `VLM.session`.

        The KV cache stays: what the next prompt begins with and the last one did, the system prompt and images that
        come first, is not computed again. Images are recognised by content. Questions asked before are about the
        images of then, also a stream that is read later. Waits for a question under way in another thread.

        Raises `ImageError` and `ContextOverflow`, as when a session is made, and `EdgeVLMError` when it is closed; its
        former images then stay.
        """
        prepared, spent = self._prepare(flat(images))
        with self._turns.between():
            self._images, self._preprocess_ms = prepared, spent

    @property
    def last_answer(self) -> Answer | None:
        """The answer to the last question that was finished or cancelled."""
        return self._last_answer

    def cancel(self) -> None:
        """End the answer in the making, from any thread; it then says "cancelled"."""
        self._turns.cancel()

    def close(self) -> None:
        """Release the KV cache. Waits for an `ask` in another thread; a stream ends as "cancelled"."""
        self._turns.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _prepare(self, images: ImageSources) -> Prepared:
        given = several(images)
        if not given:
            return (), 0.0
        start = time.perf_counter()
        prepared = tuple(self._pipeline.prepare(image) for image in given)
        tokens, capacity = sum(image.prepared.tokens for image in prepared), self._pipeline.context_tokens
        if tokens >= capacity:
            raise ContextOverflow(
                f"{len(prepared)} images need {tokens} tokens, the context holds {capacity}: give fewer images"
            )
        return prepared, (time.perf_counter() - start) * 1e3

    def _subject(self) -> tuple[ImageInput, ...]:
        """What a question asked now is about."""
        return self._images

    def _question(
        self, text: str, images: Prepared, cancel: threading.Event | None, generation: dict[str, Any]
    ) -> Question:
        options = generation_options(self._pipeline.manifest.generation, generation)
        return Question(text, *images, options, cancel)

    def _ask(self, question: Question) -> Answer:
        run = self._run(question)
        with self._turns.hold(run) as context:
            self._enter(run, context)
            for _ in run.pieces():
                pass
        assert run.answer is not None  # a generator that ended without an error has left one
        return run.answer

    def _stream(self, question: Question) -> AnswerStream:
        return AnswerStream(self._run(question), self._turns, self._begin)

    def _begin(self, run: PromptRun, context: Context) -> Pieces:
        """The generator of a stream whose turn has come."""
        self._enter(run, context)
        return run.stream()

    def _run(self, question: Question) -> PromptRun:
        return PromptRun(self._pipeline, question, self._ended)

    def _enter(self, run: PromptRun, context: Context) -> None:
        """Give a run its conversation, under the lock; the session's own images are paid for by the first question."""
        messages, images = self._conversation(run.question)
        run.enter(context, messages, images, run.question.preprocess_ms + self._preprocess_ms)
        self._preprocess_ms = 0.0

    def _conversation(self, question: Question) -> tuple[list[Message], list[ImageInput]]:
        """Messages of the prompt and the images they refer to, in order."""
        asked = self._user_message(question.text, question.images)
        return [*system_message(self._system), asked], list(question.images)

    def _user_message(self, text: str, images: Sequence[object]) -> Message:
        return user_message(text, images, literal=self._pipeline.options.text_tokens == "literal")

    def _ended(self, question: Question, answer: Answer) -> None:
        self._last_answer = answer
        self._remember(question, answer)

    def _remember(self, question: Question, answer: Answer) -> None:
        """Independent questions leave nothing behind but the KV cache."""


def system_message(text: str | None) -> list[Message]:
    """The system prompt; no message without one."""
    return [] if not text else [{"role": "system", "content": [text_part(text)]}]


def user_message(text: str, images: Sequence[object], literal: bool = False) -> Message:
    """A question: its images, then its text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in images), text_part(text, literal)]}


def text_part(text: str, literal: bool = False) -> Message:
    """Text within a message, taken letter by letter or not (`text.messages`)."""
    return {"type": "text", "text": text, "literal": True} if literal else {"type": "text", "text": text}
