"""A conversation about images."""

from __future__ import annotations

import threading
from typing import Any

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.question import Question
from edgevlm_runtime.asking.session import Session, system_message, text_part
from edgevlm_runtime.asking.stream import AnswerStream
from edgevlm_runtime.decoding.generate import CANCELLED
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import ImageSources
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.text.messages import Message, read_messages
from edgevlm_runtime.vision.encoder import ImageInput


class Chat(Session):
    """Every question sees the ones before it and their answers. Made by `VLM.chat`; threads and errors as `Session`.

    A turn that was cancelled or closed midway is kept with what had been said by then, also when a newer question was
    what ended it. A stream that was dropped without a word (no reference left) is as if it had not been asked.
    """

    def __init__(self, pipeline: Pipeline, images: ImageSources = (), system: str | None = None) -> None:
        """`images` go with the first question. Raises as `Session` does."""
        super().__init__(pipeline, images, system)
        self._history: list[Message] = []
        self._shown: list[ImageInput] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, as the chat template gets it."""
        kept = read_messages([*system_message(self._system), *self._history])
        return tuple(turn.for_template(flat_image=None) for turn in kept)

    def ask(
        self, question: str, *, images: ImageSources = (), cancel: threading.Event | None = None, **generation: Any
    ) -> Answer:
        """Go on with the conversation; `images` (one or several) are new ones that come with this question."""
        return self._ask(self._question(question, self._prepare(images), cancel, generation))

    def stream(
        self, question: str, *, images: ImageSources = (), cancel: threading.Event | None = None, **generation: Any
    ) -> AnswerStream:
        """As `ask`, piece by piece."""
        return self._stream(self._question(question, self._prepare(images), cancel, generation))

    def show(self, *images: ImageSources) -> None:
        """Not of a chat: raises `EdgeVLMError`."""
        raise EdgeVLMError("a chat keeps its images: give further ones with a question, as ask(question, images=...)")

    def _subject(self) -> tuple[ImageInput, ...]:
        """A chat's own images are part of its history, which is known when its turn has come."""
        return ()

    def _new_images(self, question: Question) -> tuple[ImageInput, ...]:
        """Images that the conversation has not seen yet: the chat's own go with its first question."""
        return question.images if self._history else (*self._images, *question.images)

    def _conversation(self, question: Question) -> tuple[list[Message], list[ImageInput]]:
        new = self._new_images(question)
        asked = self._user_message(question.text, new)
        return [*system_message(self._system), *self._history, asked], [*self._shown, *new]

    def _remember(self, question: Question, answer: Answer) -> None:
        """Keep the turn. One that was cancelled before there was any text is as if it had not been asked.

        The answer is kept as letters: whatever the model spelled out, an image's token too, is no control token of the
        next prompt.
        """
        if answer.finish_reason == CANCELLED and not answer.text:
            return
        new = self._new_images(question)
        said = {"role": "assistant", "content": [text_part(answer.text, literal=True)]}
        self._shown += new
        self._history += [self._user_message(question.text, new), said]
