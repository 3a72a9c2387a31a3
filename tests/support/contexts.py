"""Contexts of the bundle made by hand (tests/runtime/conftest.py), and prompts for them. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import edgevlm_runtime
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.text.layout import ImagePart, ImageSpan, Prompt

HIDDEN, ROWS, IMAGE = 32, 4, 258
PICTURES = {
    name: np.random.default_rng(i).standard_normal((ROWS, HIDDEN)).astype(np.float32) for i, name in enumerate("xyz")
}
Part = int | str


def prompt_of(parts: list[Part]) -> Prompt:
    """Numbers are text tokens, letters are images of four tokens."""
    ids: list[int] = []
    spans, keys = [], []
    for part in parts:
        if isinstance(part, str):
            spans.append(ImageSpan(len(ids), ROWS, len(keys), 0, (2, 2)))
            keys.append(part)
            ids += [IMAGE] * ROWS
        else:
            ids.append(part)
    return Prompt(np.array(ids, dtype=np.int64), tuple(spans), image_keys=tuple(keys))


def in_tiles(prompt: Prompt, *tiles: str) -> Prompt:
    """The prompt with each of its images in tiles of those names, a letter each."""
    pairs = [tuple(ImagePart(f"tile {name}", ROWS // len(pair)) for name in pair) for pair in tiles]
    return replace(prompt, image_parts=tuple(pairs))


def embeddings_of(prompt: Prompt) -> Callable[[int], np.ndarray]:
    return lambda number: PICTURES[prompt.image_keys[number]]


def prefill(context: Context, prompt: Prompt) -> np.ndarray:
    logits = context.prefill(prompt, embeddings_of(prompt))
    assert logits is not None
    return logits.copy()


def new_context(model: edgevlm_runtime.VLM, chunk: int = 1024) -> Context:
    return Context(model.pipeline.decoder, model.pipeline.positions, 96, chunk)
