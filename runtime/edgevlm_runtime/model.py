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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.chat import Chat
from edgevlm_runtime.asking.choice_temperature import read_calibration
from edgevlm_runtime.asking.session import Session
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import ImageProcessing, Manifest
from edgevlm_runtime.decoding import tuning
from edgevlm_runtime.decoding.baked_prefix import BakedPrefix
from edgevlm_runtime.decoding.context import Context, PromptSequence
from edgevlm_runtime.decoding.decoder import Decoder, Logits
from edgevlm_runtime.decoding.embeddings import TokenEmbeddings
from edgevlm_runtime.decoding.positions import make_positions
from edgevlm_runtime.decoding.tuning import Tuning
from edgevlm_runtime.engines import load_graphs
from edgevlm_runtime.engines.cores import physical_cores
from edgevlm_runtime.errors import ContextOverflow
from edgevlm_runtime.images import make_processor
from edgevlm_runtime.images.load import ImageSource, ImageSources, LoadOptions, load_image, several
from edgevlm_runtime.options import RuntimeOptions, runtime_options
from edgevlm_runtime.text.prompt import Message, PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer
from edgevlm_runtime.vision.cache import ImageCache
from edgevlm_runtime.vision.encoder import ImageEncoder, ImageInput
from edgevlm_runtime.vision.store import DiskStore

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
        self.image_loading = _image_loading(options, manifest.image)
        self._processor = make_processor(manifest.image)
        self._positions = make_positions(manifest.decoder.positions)
        embeddings = TokenEmbeddings(bundle)
        files = {name: bundle.file(info.file) for name, info in manifest.graphs.items()}
        self.engine, graph = load_graphs(options, files, scores=self._scores())
        store = None
        if options.image_cache_dir is not None:
            store = DiskStore(options.image_cache_dir, options.image_cache_dir_bytes)
        self.image_cache = ImageCache(options.image_cache_bytes, store)
        self.encoder = ImageEncoder(
            graph["vision_encoder"],
            graph["projector"],
            self.image_cache,
            f"{bundle.content_digest} {self.engine.identity}",
            options.vision_batch,
        )
        self.decoder = Decoder(graph["decoder"], manifest.decoder, embeddings, graph.get("prefill"))
        self._baked = BakedPrefix.load(bundle)
        self._tuning_key = tuning.key(bundle.content_digest, self.engine.identity, options.threads or physical_cores())
        self.prefill_chunk = options.prefill_chunk or tuning.recall(self._tuning_key) or tuning.DEFAULT_CHUNK

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

    def _scores(self) -> int:
        """Attention scores of a prompt's chunk, over the whole KV cache."""
        info = self.manifest.decoder
        heads = -(-info.hidden_size // info.kv.head_dim)  # where they are as wide as the model together, as is usual
        return heads * (self.options.prefill_chunk or tuning.DEFAULT_CHUNK) * self.context_tokens

    def session(self, *images: ImageSources, system: str | None = None) -> Session:
        """Independent questions about the same images (none, one, several, or a list of them): paths, bytes, PIL
        images or uint8 arrays [height, width, 3]. `system`: a system prompt; None takes the bundle's own, where it has
        one, and "" none. Raises `ImageError`, `ContextOverflow`."""
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
        prepared = self._processor(load_image(image, self.image_loading))
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
        tokens = capacity or self.context_tokens
        graph = self.manifest.graphs["decoder"]
        most = graph.largest("sequence")
        chunk = self.prefill_chunk if most is None else min(self.prefill_chunk, most)
        return Context(self.decoder, self._positions, tokens, chunk, self._baked, graph.largest("rows"))

    def tune(self, rounds: int = tuning.ROUNDS, progress: tuning.Advance = tuning.silent) -> tuple[Tuning, Path]:
        """Measure which `prefill_chunk` is fastest here, use it from the next session on, and remember it.

        Returns the figures and the file that keeps them. Raises `EdgeVLMError` when it cannot be written.
        """
        most = self.manifest.graphs["decoder"].largest("sequence") or self.context_tokens
        sizes = [size for size in tuning.CANDIDATES if size <= most]
        found = tuning.measure(self.decoder, self._positions, self.context_tokens, sizes, rounds, progress)
        self.prefill_chunk = found.prefill_chunk
        return found, tuning.remember(self._tuning_key, found)


def _image_loading(options: RuntimeOptions, processing: ImageProcessing) -> LoadOptions:
    """How pictures are opened: as the caller says, else as the bundle does."""
    turning = options.apply_exif_orientation
    return LoadOptions(
        max_pixels=options.max_image_pixels,
        apply_exif_orientation=processing.exif_orientation if turning is None else turning,
        bit_depth=options.image_bit_depth,
    )
