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
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.answer import Answer
from edgevlm_runtime.bundle import Bundle
from edgevlm_runtime.calibration import read_calibration
from edgevlm_runtime.chat import Chat
from edgevlm_runtime.context import Context, PromptSequence
from edgevlm_runtime.decoder import Decoder, Logits
from edgevlm_runtime.embeddings import TokenEmbeddings
from edgevlm_runtime.engines import make_engine
from edgevlm_runtime.errors import ContextOverflow
from edgevlm_runtime.image_cache import ImageCache
from edgevlm_runtime.image_store import DiskStore
from edgevlm_runtime.images import make_processor
from edgevlm_runtime.images.load import ImageSource, ImageSources, LoadOptions, load_image, several
from edgevlm_runtime.manifest import Manifest
from edgevlm_runtime.options import RuntimeOptions, runtime_options
from edgevlm_runtime.positions import make_positions
from edgevlm_runtime.prompt import Message, PromptEncoder
from edgevlm_runtime.session import Session
from edgevlm_runtime.tokenizer import Tokenizer
from edgevlm_runtime.vision import ImageEncoder, ImageInput

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
        options = options or RuntimeOptions()
        manifest = bundle.manifest
        self.bundle = bundle
        self.options = options
        self.prompts = PromptEncoder.load(bundle.path, manifest.prompt)
        self._loading = LoadOptions(
            max_pixels=options.max_image_pixels, apply_exif_orientation=options.apply_exif_orientation
        )
        self._processor = make_processor(manifest.image)
        self._positions = make_positions(manifest.decoder.positions)
        embeddings = TokenEmbeddings(bundle)
        engine = make_engine(options)
        graph = {name: bundle.file(info.file) for name, info in manifest.graphs.items()}
        store = None
        if options.image_cache_dir is not None:
            store = DiskStore(options.image_cache_dir, options.image_cache_dir_bytes)
        self.image_cache = ImageCache(options.image_cache_bytes, store)
        self.encoder = ImageEncoder(
            engine.load(graph["vision_encoder"]),
            engine.load(graph["projector"]),
            self.image_cache,
            f"{bundle.digest} {engine.identity}",
            options.vision_batch,
        )
        self.decoder = Decoder(engine.load(graph["decoder"], keeps_spinning=True), manifest.decoder, embeddings)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        return self.prompts.tokenizer

    @cached_property
    def choice_temperature(self) -> float:
        """What was fitted for this bundle, else 1. Raises `EdgeVLMError` when the fit is of another bundle."""
        calibration = read_calibration(self.bundle)
        return 1.0 if calibration is None else calibration.temperature

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt, images and answer together that a session can hold."""
        allowed = self.manifest.decoder.max_context
        return allowed if self.options.max_context is None else min(allowed, self.options.max_context)

    def session(self, *images: ImageSources, system: str | None = None) -> Session:
        """Independent questions about the same images (none, one, several, or a list of them): paths, bytes, PIL
        images or uint8 arrays [height, width, 3]. Raises `ImageError`, `ContextOverflow`."""
        return Session(self, [one for given in images for one in several(given)], system)

    def chat(self, *images: ImageSources, system: str | None = None) -> Chat:
        """A conversation about images. Arguments and errors as for `session`."""
        return Chat(self, [one for given in images for one in several(given)], system)

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

        All rows are held at once, 4 * S * vocab bytes: 600 MB for 1000 tokens and a vocabulary of 150 000. It is for
        measuring; answers compute the last row alone.
        """
        inputs = [self.prepare(image) for image in several(images)]
        prompt = self.assemble(messages, inputs, self.context_tokens)
        context = self.new_context(len(prompt))
        embeddings = [self.encoder.encode(image).embeddings for image in inputs]
        return prompt.token_ids, context.score(prompt, embeddings.__getitem__)

    def prepare(self, image: ImageSource) -> ImageInput:
        """Decode and preprocess one image. Raises `ImageError`."""
        prepared = self._processor(load_image(image, self._loading))
        return ImageInput(prepared, self.encoder.key(prepared))

    def assemble(self, messages: Sequence[Message], images: Sequence[ImageInput], capacity: int) -> PromptSequence:
        """The prompt's tokens. Raises `PromptError`, and `ContextOverflow` for more than `capacity` tokens."""
        encoded = self.prompts.encode(messages, [image.prepared for image in images])
        tokens = len(encoded.token_ids)
        if tokens > capacity:
            of_images = sum(image.prepared.tokens for image in images)
            told = any(message["role"] == "assistant" for message in messages)
            advice = "start another chat" if told else "shorten it, or give fewer images"
            raise ContextOverflow(
                f"the prompt needs {tokens} tokens ({of_images} of them for {len(images)} images), "
                f"the context holds {capacity}: {advice}"
            )
        keys = tuple(image.key for image in images)
        return PromptSequence(encoded.token_ids, encoded.layout, keys, encoded.text)

    def new_context(self, capacity: int | None = None) -> Context:
        """An empty KV cache of `capacity` tokens (all that the context allows) for this model."""
        return Context(self.decoder, self._positions, capacity or self.context_tokens, self.options.prefill_chunk)
