"""One question on its way to an answer: encode what images need it, prefill, then generate or weigh choices."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence

from edgevlm_runtime.asking.answer import Answer, Token
from edgevlm_runtime.asking.choices import Choice, ChoiceOptions, score_choices, verdict
from edgevlm_runtime.asking.question import Question
from edgevlm_runtime.asking.record import AnswerRecord
from edgevlm_runtime.decoding.ahead.lookup import Ahead
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.decoding.generate import CANCELLED, Ending, TokenEvent, generate
from edgevlm_runtime.decoding.sampling import Sampler
from edgevlm_runtime.errors import Cancelled
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.text.layout import Prompt
from edgevlm_runtime.text.prompt import Message
from edgevlm_runtime.text.stop_strings import stop_tokens
from edgevlm_runtime.vision.cache import Embeddings
from edgevlm_runtime.vision.encoder import ImageInput

Pieces = Generator[str, None, None]


class PromptRun:
    """The run of one question: its conversation, the KV cache it works on, what is known of the answer so far.

    A turn on a session's cache (`turns.Turn`): made when the question is asked, begun by `enter` when its turn has
    come, then either `pieces` or `choose`.
    """

    def __init__(self, pipeline: Pipeline, question: Question, ended: Callable[[Question, Answer], None]) -> None:
        """`ended` is told of the answer when the turn is over, where there is one."""
        self.question = question
        self.answer: Answer | None = None
        self._pipeline = pipeline
        self._ended = ended
        self._prompt: Prompt | None = None
        """What the KV cache holds, once it does."""
        self._stream: weakref.ref[Pieces] | None = None
        """The generator of a stream; weak, so that a stream nobody holds any more ends by itself."""

    def enter(
        self,
        context: Context,
        messages: Sequence[Message],
        images: Sequence[ImageInput],
        preprocess_ms: float,
        prompt: Prompt | None = None,
    ) -> None:
        """The turn has come. `images` are all those of `messages`, in order; `preprocess_ms` is what they took;
        `prompt`: their tokens, where somebody has assembled them already."""
        self._prompt = prompt
        self._context = context
        self._messages = messages
        self._images = images
        self._record = AnswerRecord(preprocess_ms)

    @property
    def streaming(self) -> bool:
        """See `Turn.streaming`."""
        return self._stream is not None

    def cancel(self) -> None:
        """See `Turn.cancel`."""
        self.question.cancel()

    def cancelled(self) -> bool:
        """See `Turn.cancelled`."""
        return self.question.cancelled()

    def finish(self) -> None:
        """See `Turn.finish`. A stream that nobody holds any more leaves no trace: there is no telling how much of it
        was read."""
        if self._stream is not None:
            pieces = self._stream()
            if pieces is None:
                return
            pieces.close()
        if self.answer is not None:
            self._ended(self.question, self.answer)

    def stream(self) -> Pieces:
        """As `pieces`, for a reader who takes one at a time: others may end it between two of them."""
        pieces = self.pieces()
        self._stream = weakref.ref(pieces)
        return pieces

    def pieces(self) -> Pieces:
        """Answer; yields pieces of text, between which others may use the cache only if this generator is not resumed
        afterwards. `answer` is there when the generator has ended, unless it ended with an error.
        """
        record = self._record
        try:
            for event in self._events():
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
        self._keep()

    def tokens(self, start: int) -> list[Token]:
        """What was generated so far, from the `start`-th token on."""
        return self._record.tokens(start)

    def choose(self, choices: tuple[str, ...], options: ChoiceOptions) -> Choice:
        """Weigh `choices` as answers instead of generating one. Raises `Cancelled`."""
        prompt, logits = self._prefill()
        if logits is None:
            raise Cancelled("choosing was cancelled: ask again")
        ends = self._pipeline.manifest.generation.eos_token_ids
        with self._record.timed("prefill"):
            scores = score_choices(choices, prompt, self._pipeline.prompts, logits, self._context, ends, options.end)
        self._keep()
        done = self._record.answer()
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

    def _events(self) -> Iterator[TokenEvent]:
        ending = self._ending()
        form = self.question.options.form
        constraint = None if form is None else self._pipeline.constraints.make(form)
        prompt, logits = self._prefill()
        if logits is None:
            yield TokenEvent("", finish_reason=CANCELLED)
            return
        vocab = self._pipeline.manifest.decoder.vocab_size
        sampler = Sampler(self.question.options, prompt.token_ids, vocab)
        text = self._pipeline.tokenizer.stream()
        yield from generate(logits, self._context, sampler, text, ending, constraint, self._look(prompt))

    def _keep(self) -> None:
        """After an answer: have what it took found again by another process."""
        if self._pipeline.stored is not None and self._prompt is not None:
            self._pipeline.stored.keep(self._context, self._prompt)

    def _look(self, prompt: Prompt) -> Callable[[int], Ahead | None]:
        """What looks the next tokens up, for an answer of so many at most."""
        lookups = self._pipeline.lookups
        return lambda limit: None if lookups is None else lookups.begin(self._context, prompt, limit)

    def _prefill(self) -> tuple[Prompt, Logits | None]:
        """Bring the prompt into the cache; its last logits [vocab], None when cancelled."""
        record, context = self._record, self._context
        prompt = self._prompt
        if prompt is None:
            prompt = self._pipeline.assemble(self._messages, self._images, context.capacity)
        record.prompt_tokens = len(prompt)
        record.image_tokens = sum(image.prepared.tokens for image in self._images)
        if self._pipeline.stored is not None:
            with record.timed("prefill"):
                self._pipeline.stored.recall(context, prompt)
        record.prefix_tokens = context.shared_prefix(prompt)
        embeddings = self._encode(prompt)
        if embeddings is None:
            return prompt, None
        with record.timed("prefill"):
            logits = context.prefill(prompt, embeddings.__getitem__, self.cancelled)
        self._prompt = None if logits is None else prompt
        return prompt, logits

    def _encode(self, prompt: Prompt) -> dict[int, Embeddings] | None:
        """Embeddings of the images that reach beyond the reused prefix, by number; None when cancelled."""
        record = self._record
        embeddings: dict[int, Embeddings] = {}
        record.image_cache = "hit" if self._images else "none"
        for number, image in enumerate(self._images):
            if prompt.image_stop(number) <= record.prefix_tokens:
                continue
            if self.cancelled():
                return None
            encoded = self._pipeline.encoder.encode(image)
            embeddings[number] = encoded.embeddings
            record.spent["vision"] += encoded.vision_ms
            record.spent["projector"] += encoded.projector_ms
            if not encoded.cached:
                record.image_cache = "miss"
        return embeddings

    def _ending(self) -> Ending:
        manifest, options = self._pipeline.manifest, self.question.options
        strings = manifest.prompt.stop_strings + options.stop
        return Ending(
            eos_token_ids=frozenset(manifest.generation.eos_token_ids),
            max_new_tokens=options.max_new_tokens,
            stop_strings=strings,
            stop_token_ids=stop_tokens(strings, self._pipeline.tokenizer),
            cancelled=self.cancelled,
        )
