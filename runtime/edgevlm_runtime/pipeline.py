"""The loaded parts of a bundle, and what they do together: prepare an image, assemble a prompt, open a KV cache.

It knows nothing of sessions, questions or answers: `asking` is above it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from edgevlm_runtime.bundle.choice_temperature import read_fit
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import VALUES, Manifest
from edgevlm_runtime.decoding import tuning
from edgevlm_runtime.decoding.ahead.lookup import Lookups
from edgevlm_runtime.decoding.baked_prefix import BakedPrefix
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.decoder import Decoder
from edgevlm_runtime.decoding.embeddings import TokenEmbeddings
from edgevlm_runtime.decoding.kept.context_store import ContextStore
from edgevlm_runtime.decoding.positions import PositionScheme, make_positions
from edgevlm_runtime.engines import load_graphs
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.chosen import choose
from edgevlm_runtime.engines.assigned.several import engine_of
from edgevlm_runtime.engines.base import Engine, Graph, GraphRequest
from edgevlm_runtime.errors import ContextOverflow
from edgevlm_runtime.images import make_processor
from edgevlm_runtime.images.base import ImageProcessor
from edgevlm_runtime.images.load import ImageSource, LoadOptions, load_image
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.text.constraint import Constraints
from edgevlm_runtime.text.layout import Prompt
from edgevlm_runtime.text.prompt import Message, PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer
from edgevlm_runtime.vision.cache import ImageCache
from edgevlm_runtime.vision.encoder import ImageEncoder, ImageInput
from edgevlm_runtime.vision.store import DiskStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The parts of one bundle. Read-only, and safe from any thread."""

    bundle: Bundle
    options: RuntimeOptions
    engine: Engine
    prompts: PromptEncoder
    processor: ImageProcessor
    encoder: ImageEncoder
    decoder: Decoder
    positions: PositionScheme
    baked: BakedPrefix | None
    prefill_chunk: int
    """Prompt positions that a new context computes at once."""
    lookups: Lookups | None = None
    """Prompt lookup, where it is asked for."""
    stored: ContextStore | None = None
    """Contexts on disk, where they are asked for."""

    @classmethod
    def load(cls, bundle: Bundle, options: RuntimeOptions) -> Pipeline:
        """Load the graphs of an opened bundle, and everything around them. Raises as `edgevlm_runtime.load` does."""
        manifest = bundle.manifest
        prompts = PromptEncoder.load(bundle.path, manifest.prompt)
        processor, positions = make_processor(manifest.image), make_positions(manifest.decoder.positions)
        embeddings = TokenEmbeddings(bundle)
        known = tuned.recall(tuned.key_of(bundle, options.threads)) or tuned.Tuned()
        asked = requests(bundle, options)
        engine, graphs = load_graphs(choose(options, tuple(manifest.graphs), known), asked)
        chunk = known.current.prefill_chunks.get(engine_of(engine, "decoder").identity)
        return cls(
            bundle,
            options,
            engine,
            prompts,
            processor,
            _encoder(bundle, options, graphs, _image_cache(options), engine.identity),
            _decoder(bundle, graphs, embeddings),
            positions,
            BakedPrefix.load(bundle),
            options.prefill_chunk or chunk or tuning.DEFAULT_CHUNK,
            Lookups() if options.prompt_lookup else None,
            _context_store(bundle, options, _filled_by(engine.identity, manifest, graphs)),
        )

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        return self.prompts.tokenizer

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt, images and answer together that a context can hold."""
        return _context_tokens(self.manifest, self.options)

    @cached_property
    def constraints(self) -> Constraints:
        """What holds answers to a form."""
        manifest = self.manifest
        return Constraints(self.tokenizer, manifest.decoder.vocab_size, manifest.generation.eos_token_ids)

    @cached_property
    def choice_temperature(self) -> float:
        """What was fitted for this bundle, else 1. Raises `EdgeVLMError` when the fit is of another bundle."""
        fit = read_fit(self.bundle)
        return 1.0 if fit is None else fit.temperature

    @cached_property
    def tuning_key(self) -> str:
        """What is measured here is kept under this (`engines.assigned.tuned`)."""
        return tuned.key_of(self.bundle, self.options.threads)

    @property
    def decoder_engine(self) -> str:
        """Identity of what runs the decoder, for which a measured `prefill_chunk` holds."""
        return engine_of(self.engine, "decoder").identity

    @property
    def image_loading(self) -> LoadOptions:
        """How pictures are opened: as the caller says, else as the bundle does."""
        turning = self.options.apply_exif_orientation
        return LoadOptions(
            max_pixels=self.options.max_image_pixels,
            apply_exif_orientation=self.manifest.image.exif_orientation if turning is None else turning,
            bit_depth=self.options.image_bit_depth,
        )

    @property
    def graphs(self) -> dict[str, Graph]:
        """The loaded graphs by name."""
        found = {
            "vision_encoder": self.encoder.vision,
            "projector": self.encoder.projector,
            "decoder": self.decoder.graph,
        }
        return found if self.decoder.prefill_graph is None else {**found, "prefill": self.decoder.prefill_graph}

    def with_graphs(self, graphs: Mapping[str, Graph]) -> Pipeline:
        """The same parts with other graphs in place of some; for measuring: no image, context or answer is
        remembered."""
        all_graphs = {**self.graphs, **graphs}
        return replace(
            self,
            encoder=_encoder(self.bundle, self.options, all_graphs, ImageCache(0), ""),
            decoder=_decoder(self.bundle, all_graphs, self.decoder.embeddings),
            lookups=None,
            stored=None,
        )

    def with_prefill_chunk(self, chunk: int) -> Pipeline:
        """The same parts; new contexts compute `chunk` positions at once."""
        return replace(self, prefill_chunk=chunk)

    def measure_chunks(self, rounds: int, progress: tuning.Advance = tuning.silent) -> tuning.Tuning:
        """Which `prefill_chunk` is fastest here. Raises as `tuning.measure` does."""
        most = self.manifest.graphs["decoder"].largest("sequence") or self.context_tokens
        sizes = [size for size in tuning.CANDIDATES if size <= most]
        return tuning.measure(self.decoder, self.positions, self.context_tokens, sizes, rounds, progress)

    def prepare(self, image: ImageSource) -> ImageInput:
        """Decode and preprocess one image. Raises `ImageError`."""
        return self.encoder.identify(self.processor(load_image(image, self.image_loading)))

    def assemble(self, messages: Sequence[Message], images: Sequence[ImageInput], capacity: int) -> Prompt:
        """The prompt's tokens. Raises `PromptError`, and `ContextOverflow` for more than `capacity` tokens."""
        prompt = self.prompts.encode(messages, [image.prepared for image in images], most=capacity)
        if len(prompt) > capacity:
            of_images = sum(image.prepared.tokens for image in images)
            told = any(message["role"] == "assistant" for message in messages)
            advice = "start another chat" if told else "shorten it, or give fewer images"
            raise ContextOverflow(
                f"the prompt needs {len(prompt)} tokens ({of_images} of them for {len(images)} images), "
                f"the context holds {capacity}: {advice}"
            )
        keys, parts = tuple(image.key for image in images), tuple(image.parts for image in images)
        return replace(prompt, image_keys=keys, image_parts=parts)

    def new_context(self, capacity: int | None = None) -> Context:
        """An empty KV cache of `capacity` tokens (all that the context allows)."""
        graph = self.manifest.graphs["decoder"]
        most = graph.largest("sequence")
        chunk = self.prefill_chunk if most is None else min(self.prefill_chunk, most)
        tokens = capacity or self.context_tokens
        return Context(self.decoder, self.positions, tokens, chunk, self.baked, graph.largest("rows"))


def _context_tokens(manifest: Manifest, options: RuntimeOptions) -> int:
    allowed = manifest.decoder.max_context
    return allowed if options.max_context is None else min(allowed, options.max_context)


def _encoder(
    bundle: Bundle, options: RuntimeOptions, graphs: Mapping[str, Graph], cache: ImageCache, engine: str
) -> ImageEncoder:
    return ImageEncoder(
        graphs["vision_encoder"],
        graphs["projector"],
        cache,
        f"{bundle.content_digest} {engine}",
        options.vision_batch,
        bundle.manifest.decoder.row_width,
        str(bundle.path),
    )


def _decoder(bundle: Bundle, graphs: Mapping[str, Graph], embeddings: TokenEmbeddings) -> Decoder:
    return Decoder(graphs["decoder"], bundle.manifest.decoder, embeddings, graphs.get("prefill"), str(bundle.path))


def _image_cache(options: RuntimeOptions) -> ImageCache:
    store = None
    if options.image_cache_dir is not None:
        store = DiskStore(options.image_cache_dir, options.image_cache_dir_bytes)
    return ImageCache(options.image_cache_bytes, store)


def _filled_by(identity: str, manifest: Manifest, graphs: Mapping[str, Graph]) -> str:
    """What decides keys and values: also whether a bundle's graph for prompts is in use."""
    return f"{identity} prefill={'prefill' in graphs}" if "prefill" in manifest.graphs else identity


def _context_store(bundle: Bundle, options: RuntimeOptions, engine: str) -> ContextStore | None:
    if options.context_cache_dir is None:
        return None
    identity = f"{bundle.content_digest} {engine}"
    return ContextStore(options.context_cache_dir, options.context_cache_dir_bytes, identity, bundle.manifest.decoder)


def requests(bundle: Bundle, options: RuntimeOptions) -> list[GraphRequest]:
    """Every graph of the bundle, with what is known of how it will be run."""
    manifest = bundle.manifest
    chunk = options.prefill_chunk or tuning.DEFAULT_CHUNK
    scores = manifest.decoder.attention_scores(chunk, _context_tokens(manifest, options))
    return [GraphRequest(bundle, name, name == "decoder", scores) for name in _graphs(manifest, options)]


def _graphs(manifest: Manifest, options: RuntimeOptions) -> tuple[str, ...]:
    """Names of the graphs that are loaded. A prefill graph whose values are not the decoder's is none: early exporters
    made such, and answers were noise."""
    prompts = manifest.graphs.get("prefill")
    alike = prompts is None or (VALUES in prompts.transforms) == (VALUES in manifest.graphs["decoder"].transforms)
    if not alike and options.prefill_graph:
        log.warning("the prefill graph is left out: its values are not those the decoder reads: export the model again")
    wanted = alike and options.prefill_graph
    return tuple(name for name in manifest.graphs if name != "prefill" or wanted)
