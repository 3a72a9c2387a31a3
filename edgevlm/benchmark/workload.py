"""What every engine is asked: an image, a first question, a second one about the same image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines.assigned.chosen import chosen_words
from edgevlm_runtime.engines.cores import told_threads
from edgevlm_runtime.errors import ContextOverflow, EdgeVLMError
from edgevlm_runtime.images import LoadOptions, load_image, make_processor
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_pixels
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.text.prompt import PromptEncoder

FALLBACK_SIDE = 448
"""Side of the random image where the model takes any size."""
SIDES: dict[str, Callable[[dict[str, Any]], tuple[int, int]]] = {
    "fixed": lambda options: (options["width"], options["height"]),
    "tiles": lambda options: (options["tile"], options["tile"]),
    "anyres": lambda options: (options["tile"], options["tile"]),
}
"""By kind of image processing: width and height of the image the model takes without cropping."""
FIRST = "please look at this part and say whether its surface shows any scratch, dent, stain or missing piece. "
SECOND = "now tell which corner of the picture the marking is nearest to, and what may have caused it there. "
"""The questions are beginnings of these, repeated; they differ from the first token on, as two questions do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the user wants measured. Raises `EdgeVLMError` for values that mean nothing."""

    image: Path | None = None
    """None draws random pixels."""
    apply_exif_orientation: bool | None = None
    """As in `RuntimeOptions`, for every engine."""
    image_bit_depth: int | None = None
    """As in `RuntimeOptions`, for every engine."""
    image_size: tuple[int, int] | None = None
    """Width and height of the random image; None takes the model's own."""
    prompt: str | None = None
    """The first question; None makes one of `text_tokens`."""
    text_tokens: int = 32
    """Tokens of the prompt that are not the image's, the chat template's included."""
    new_tokens: int = 32
    repeats: int = 10
    warmup: int = 2
    threads: int | None = None
    """None takes the physical cores."""
    provider: str = "cpu"
    """Of bundles, as the next."""
    engine: str | None = None
    """As in `RuntimeOptions`."""

    def __post_init__(self) -> None:
        least = {"text_tokens": 1, "new_tokens": 2, "repeats": 1, "warmup": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise EdgeVLMError(f"bad value for {name}: {getattr(self, name)}: it must be at least {value}")
        if self.threads is not None and self.threads < 1:
            raise EdgeVLMError(f"bad value for threads: {self.threads}: it must be at least 1")
        if self.image is not None and self.image_size is not None:
            raise EdgeVLMError("an image and the size of a random image exclude each other: give one of them")
        if self.image_size is not None and min(self.image_size) < 1:
            raise EdgeVLMError(f"bad image size: {self.image_size}: width and height must be at least 1")


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine's process is given; plain data."""

    image: str
    first: str
    second: str
    new_tokens: int
    threads: int
    provider: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the results say about the workload."""

    image: str
    """"random", or the file's name."""
    image_size: tuple[int, int]
    """Width and height."""
    image_tokens: int
    """Tokens that stand for the image, in the first bundle."""
    text_tokens: int
    """Further tokens of the prompt."""
    prompt_tokens: int
    """Both together; also the depth of the KV cache at which decoding begins."""
    new_tokens: int
    """Tokens generated for each answer."""
    repeats: int
    """Rounds that count."""
    warmup: int
    """Rounds before them."""
    threads: int
    """Threads of a graph."""
    provider: str
    """Execution provider of the bundles."""
    engine: str = "ort"
    """Engine of the bundles, as `--engine` says it; where it was tuned, that of the first bundle."""


def prepare(workload: Workload, bundle: Bundle, folder: Path) -> tuple[Task, Facts]:
    """Make image and questions, by the tokenizer and image processor of `bundle`; the image is kept in `folder`.

    Raises `ImageError`, `PromptError`, and `ContextOverflow` when the answer would not fit the context.
    """
    manifest = bundle.manifest
    asked = 0 if workload.prompt else workload.text_tokens
    if asked + workload.new_tokens > manifest.decoder.max_context:
        raise ContextOverflow(
            f"{asked} text and {workload.new_tokens} new tokens are more than the context of "
            f"{manifest.decoder.max_context}: ask for fewer"
        )
    file = workload.image or _random_image(workload.image_size or model_size(bundle), folder)
    turning = workload.apply_exif_orientation
    loading = LoadOptions(
        apply_exif_orientation=manifest.image.exif_orientation if turning is None else turning,
        bit_depth=workload.image_bit_depth,
    )
    pixels = load_image(file, loading)
    if loading != LoadOptions():  # what engines would open by themselves
        file = folder / "picture.png"
        pixels.save(file)
    prepared = make_processor(manifest.image)(pixels)
    prompts = PromptEncoder.load(bundle.path, manifest.prompt)

    def count(text: str) -> int:
        return _prompt_tokens(prompts, prepared, text) - prepared.tokens

    first = workload.prompt or fit(FIRST, workload.text_tokens, count)
    second = fit(SECOND, count(first), count)
    text_tokens = count(first)
    tokens, limit = text_tokens + prepared.tokens, manifest.decoder.max_context
    if tokens + workload.new_tokens > limit:
        raise ContextOverflow(
            f"{prepared.tokens} image, {text_tokens} text and {workload.new_tokens} new tokens are more than the "
            f"context of {limit}: ask for fewer"
        )
    threads = told_threads(workload.threads)
    task = Task(str(file), first, second, workload.new_tokens, threads, workload.provider, workload.engine)
    facts = Facts(
        image="random" if workload.image is None else workload.image.name,
        image_size=(pixels.width, pixels.height),
        image_tokens=prepared.tokens,
        text_tokens=text_tokens,
        prompt_tokens=tokens,
        new_tokens=workload.new_tokens,
        repeats=workload.repeats,
        warmup=workload.warmup,
        threads=threads,
        provider=workload.provider,
        engine=chosen_words(
            RuntimeOptions(provider=workload.provider, engine=workload.engine, threads=workload.threads), bundle
        ),
    )
    return task, facts


def model_size(bundle: Bundle) -> tuple[int, int]:
    """Width and height of an image that the model takes as it is."""
    processing = bundle.manifest.image
    known = SIDES.get(processing.kind)
    return (FALLBACK_SIDE, FALLBACK_SIDE) if known is None else known(processing.options)


def fit(source: str, wanted: int, count: Callable[[str], int]) -> str:
    """The shortest beginning of `source`, repeated, with at least `wanted` tokens. A longer one has no fewer."""
    high = 1
    while count(_begin(source, high)) < wanted:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(_begin(source, middle)) < wanted else (low, middle)
    return _begin(source, high)


def _begin(source: str, length: int) -> str:
    """Without a space at its end, which a chat template may strip."""
    return (source * -(-length // len(source)))[:length].rstrip()


def _prompt_tokens(prompts: PromptEncoder, image: PreparedImage, text: str) -> int:
    parts = [{"type": "image"}, {"type": "text", "text": text}]
    return int(prompts.encode([{"role": "user", "content": parts}], [image]).token_ids.size)


def _random_image(size: tuple[int, int], folder: Path) -> Path:
    """Noise, the same each time: no cache and no codec makes it easier than a photograph."""
    width, height = size
    check_pixels(width, height, "a random image")
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = folder / "random.png"
    Image.fromarray(pixels).save(path)
    return path
