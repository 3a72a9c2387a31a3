"""A loaded bundle: `load` opens it, `VLM` answers.

    vlm = load("llava-int8/")
    with vlm.session("part.png") as session:
        print(session.ask("Is there a scratch?"))
        for piece in session.stream("Describe it."):
            print(piece, end="")
    print(vlm.ask("part.png", "What is it made of?"))

One `VLM` may be used from several threads: graphs, embeddings and image cache are shared, each session has its own KV
cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.chat import Chat
from edgevlm_runtime.asking.conversations import Conversations
from edgevlm_runtime.asking.session import Session
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.decoding import tuning
from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.decoding.tuning import Tuning
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.images.load import ImageSources, flat, several
from edgevlm_runtime.options import RuntimeOptions, runtime_options
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.text.prompt import Message
from edgevlm_runtime.text.tokenizer import Tokenizer
from edgevlm_runtime.vision.cache import ImageCache

log = logging.getLogger(__name__)


def load(path: str | os.PathLike[str], **options: Any) -> VLM:
    """Load the bundle in folder `path`. `options`: fields of `RuntimeOptions`.

    Raises `BundleError` (and its kinds) for a bundle that is incomplete, altered or too new, `ProviderError` for an
    execution provider that does not load, `EdgeVLMError` for bad options.
    """
    chosen = runtime_options(options)
    bundle = Bundle.open(path, chosen.verify)
    allowed = bundle.manifest.decoder.max_context
    if chosen.max_context is not None and chosen.max_context > allowed:
        log.warning("max_context is %d, the model allows %d: %d are used", chosen.max_context, allowed, allowed)
    return VLM(bundle, chosen)


class VLM:
    """A vision-language model, ready to answer. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, options: RuntimeOptions | None = None) -> None:
        """Load the graphs of an opened bundle. Raises as `load` does."""
        self.pipeline = Pipeline.load(bundle, options or RuntimeOptions())
        """The loaded parts, for measuring; sessions and chats are made of them."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> VLM:
        """One of parts that are loaded already, for measuring."""
        made = cls.__new__(cls)
        made.pipeline = pipeline
        return made

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""
        return self.pipeline.bundle

    @property
    def options(self) -> RuntimeOptions:
        """What it was loaded with."""
        return self.pipeline.options

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.pipeline.manifest

    @property
    def engine(self) -> Engine:
        """The engine that runs the graphs."""
        return self.pipeline.engine

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        return self.pipeline.tokenizer

    @property
    def image_cache(self) -> ImageCache:
        """Embeddings of images seen before."""
        return self.pipeline.encoder.cache

    @property
    def prefill_chunk(self) -> int:
        """Prompt positions that a new session computes at once."""
        return self.pipeline.prefill_chunk

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt, images and answer together that a session can hold."""
        return self.pipeline.context_tokens

    @property
    def choice_temperature(self) -> float:
        """What was fitted for this bundle, else 1. Raises `EdgeVLMError` when the fit is of another bundle."""
        return self.pipeline.choice_temperature

    def session(self, *images: ImageSources, system: str | None = None) -> Session:
        """Independent questions about the same images (none, one, several, or a list of them): paths, bytes, PIL
        images or uint8 arrays [height, width, 3]. `system`: a system prompt; None takes the bundle's own, where it has
        one, and "" none. Raises `ImageError`, `ContextOverflow`."""
        return Session(self.pipeline, flat(images), system)

    def chat(self, *images: ImageSources, system: str | None = None) -> Chat:
        """A conversation about images. Arguments and errors as for `session`."""
        return Chat(self.pipeline, flat(images), system)

    def conversations(self, contexts: int = 4) -> Conversations:
        """Answers whole conversations, given from their beginning; `contexts` KV caches are kept between them. Raises
        `EdgeVLMError` for fewer than one."""
        return Conversations(self.pipeline, contexts)

    def ask(
        self,
        images: ImageSources,
        question: str,
        *,
        system: str | None = None,
        **more: Any,
    ) -> Answer:
        """One question about one image, several, or none (None). `more`: keyword arguments of `Session.ask`."""
        with self.session(images, system=system) as session:
            return session.ask(question, **more)

    def prompt_logits(self, messages: Sequence[Message], images: ImageSources = ()) -> tuple[NDArray[np.int64], Logits]:
        """Token ids [S] of a conversation, image tokens included, and the decoder's logits [S, vocab] for each.

        All rows are in memory at once, 4 * S * vocab bytes: 600 MB for 1000 tokens and a vocabulary of 150 000. It is
        for measuring; answers compute the last row alone.
        """
        parts = self.pipeline
        inputs = [parts.prepare(image) for image in several(images)]
        prompt = parts.assemble(messages, inputs, parts.context_tokens)
        context = parts.new_context(len(prompt))
        embeddings = [parts.encoder.encode(image).embeddings for image in inputs]
        return prompt.token_ids, context.score(prompt, embeddings.__getitem__)

    def tune(self, rounds: int = tuning.ROUNDS, progress: tuning.Advance = tuning.silent) -> tuple[Tuning, Path]:
        """Measure which `prefill_chunk` is fastest here, use it from the next session on, and remember it.

        Returns the figures and the file that keeps them. Raises `EdgeVLMError` when it cannot be written.
        """
        parts = self.pipeline
        tuned.check_place(parts.tuning_key)
        measured = parts.measure_chunks(rounds, progress)
        self.pipeline = parts.with_prefill_chunk(measured.prefill_chunk)
        before = tuned.known(parts.tuning_key)
        chunks = {**before.prefill_chunks, parts.decoder_engine: measured.prefill_chunk}
        return measured, tuned.remember(parts.tuning_key, replace(before, prefill_chunks=chunks))
