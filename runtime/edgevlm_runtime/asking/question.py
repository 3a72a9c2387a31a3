"""One question on its way to an answer: encode what images need it, prefill, then generate or weigh choices."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.choices import Choice, ChoiceOptions, score_choices, verdict
from edgevlm_runtime.asking.record import AnswerRecord
from edgevlm_runtime.decoding.context import Context, PromptSequence
from edgevlm_runtime.decoding.generate import CANCELLED, Ending, TokenEvent, generate
from edgevlm_runtime.decoding.sampling import Sampler
from edgevlm_runtime.errors import Cancelled, EdgeVLMError
from edgevlm_runtime.options import GenerationOptions
from edgevlm_runtime.text.prompt import Message
from edgevlm_runtime.text.stop_strings import stop_tokens
from edgevlm_runtime.vision.cache import Embeddings
from edgevlm_runtime.vision.encoder import ImageInput

if TYPE_CHECKING:
    from edgevlm_runtime.decoding.decoder import Logits
    from edgevlm_runtime.model import VLM

Pieces = Generator[str, None, None]


class Question:
    """A question, what may cancel it, and its answer once there is one."""

    def __init__(
        self,
        text: str,
        images: tuple[ImageInput, ...] = (),
        preprocess_ms: float = 0.0,
        options: GenerationOptions | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        """`preprocess_ms`: what preparing `images` took. Raises `EdgeVLMError` when `cancel` is no event."""
        if not (cancel is None or callable(getattr(cancel, "is_set", None))):
            raise EdgeVLMError(f"bad value for cancel: {cancel!r}: it must be a threading.Event, or None")
        self.text = text
        self.images = images
        """Images that come with this question alone, before its text."""
        self.preprocess_ms = preprocess_ms
        self.answer: Answer | None = None
        self.running: weakref.ref[Pieces] | None = None
        """The generator of a stream; weak, so that a stream nobody holds any more ends by itself."""
        self._options = options or GenerationOptions()
        self._cancel = cancel
        self._own_cancel = threading.Event()

    def cancel(self) -> None:
        """End the answer after the token being computed; from any thread."""
        self._own_cancel.set()

    def cancelled(self) -> bool:
        """Whether the caller wants no more."""
        return self._own_cancel.is_set() or (self._cancel is not None and self._cancel.is_set())

    def run(self, vlm: VLM, context: Context, messages: Sequence[Message], images: Sequence[ImageInput]) -> Pieces:
        """Answer over `context`; yields pieces of text, between which others may use `context` only if this generator
        is not resumed afterwards.

        `images` are all those of `messages`, in order. The answer is there when the generator has ended, unless it
        ended with an error.
        """
        record = AnswerRecord(self.preprocess_ms)
        try:
            for event in self._events(vlm, context, messages, images, record):
                record.add(event)
                if event.text:
                    record.pause()
                    yield event.text
                    record.resume()
        except GeneratorExit:
            record.finish_reason = record.finish_reason or CANCELLED
            raise
        finally:
            if record.finish_reason is not None:
                self.answer = record.answer()

    def choose(
        self,
        vlm: VLM,
        context: Context,
        messages: Sequence[Message],
        images: Sequence[ImageInput],
        choices: tuple[str, ...],
        options: ChoiceOptions,
    ) -> Choice:
        """Weigh `choices` as answers instead of generating one. Arguments as for `run`; raises `Cancelled`."""
        record = AnswerRecord(self.preprocess_ms)
        prompt, logits = self._open(vlm, context, messages, images, record)
        if logits is None:
            raise Cancelled("choosing was cancelled: ask again")
        ends = vlm.manifest.generation.eos_token_ids
        with record.timed("prefill"):
            scores = score_choices(choices, prompt, vlm.prompts, logits, context, ends, options.end)
        done = record.answer()
        return verdict(
            choices,
            scores,
            options,
            timings=done.timings,
            prompt_tokens=done.prompt_tokens,
            image_tokens=done.image_tokens,
            image_cache=done.image_cache,
            prefix_tokens_reused=done.prefix_tokens_reused,
        )

    def _events(
        self,
        vlm: VLM,
        context: Context,
        messages: Sequence[Message],
        images: Sequence[ImageInput],
        record: AnswerRecord,
    ) -> Iterator[TokenEvent]:
        ending = self._ending(vlm)
        prompt, logits = self._open(vlm, context, messages, images, record)
        if logits is None:
            yield TokenEvent("", finish_reason=CANCELLED)
            return
        room = context.capacity - context.length
        sampler = Sampler(self._options, prompt.token_ids, vlm.manifest.decoder.vocab_size)
        yield from generate(logits, context.step, room, sampler, vlm.tokenizer.stream(), ending)

    def _open(
        self,
        vlm: VLM,
        context: Context,
        messages: Sequence[Message],
        images: Sequence[ImageInput],
        record: AnswerRecord,
    ) -> tuple[PromptSequence, Logits | None]:
        """Bring the prompt into `context`; its last logits [vocab], None when cancelled."""
        prompt = vlm.assemble(messages, images, context.capacity)
        record.prompt_tokens = len(prompt)
        record.image_tokens = sum(image.prepared.tokens for image in images)
        record.prefix_tokens = context.shared_prefix(prompt)
        embeddings = self._encode(vlm, prompt, images, record)
        if embeddings is None:
            return prompt, None
        with record.timed("prefill"):
            return prompt, context.prefill(prompt, embeddings.__getitem__, self.cancelled)

    def _ending(self, vlm: VLM) -> Ending:
        strings = vlm.manifest.prompt.stop_strings + self._options.stop
        return Ending(
            eos_token_ids=frozenset(vlm.manifest.generation.eos_token_ids),
            max_new_tokens=self._options.max_new_tokens,
            stop_strings=strings,
            stop_token_ids=stop_tokens(strings, vlm.tokenizer),
            cancelled=self.cancelled,
        )

    def _encode(
        self, vlm: VLM, prompt: PromptSequence, images: Sequence[ImageInput], record: AnswerRecord
    ) -> dict[int, Embeddings] | None:
        """Embeddings of the images that reach beyond the reused prefix, by number; None when cancelled."""
        embeddings: dict[int, Embeddings] = {}
        record.image_cache = "hit" if images else "none"
        for number, image in enumerate(images):
            if prompt.image_stop(number) <= record.prefix_tokens:
                continue
            if self.cancelled():
                return None
            encoded = vlm.encoder.encode(image)
            embeddings[number] = encoded.embeddings
            record.spent["vision"] += encoded.vision_ms
            record.spent["projector"] += encoded.projector_ms
            if not encoded.cached:
                record.image_cache = "miss"
        return embeddings
