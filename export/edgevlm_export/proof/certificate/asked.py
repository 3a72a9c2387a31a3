"""What the bundle says about each named input, before the reference is asked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_export.proof.certificate.inputs import NamedInput
from edgevlm_runtime import VLM
from edgevlm_runtime.asking.session import system_message
from edgevlm_runtime.text.prompt import Message
from edgevlm_runtime.vision.encoder import ImageInput

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """One named input, answered by the bundle."""

    images: tuple[tuple[Rows, Rows], ...]
    """Of each picture: vision features [rows, width] and embeddings [tokens, hidden]."""
    answer: tuple[int, ...]
    """Greedy."""
    forced: tuple[int, ...]
    """The answer as far as a reference can read it along: an image's token would ask for another image."""
    token_ids: NDArray[np.int64]
    """[S]: the prompt and `forced`."""
    logits: Rows
    """[R, vocab], of the positions that hold text, in order."""


def ask(vlm: VLM, one: NamedInput, new_tokens: int) -> Asked:
    """Have the bundle answer, and read its own answer again for the logits."""
    pictures = one.pictures()
    answer = vlm.ask(pictures, one.question, max_new_tokens=new_tokens, temperature=0.0, logprobs=False).token_ids
    image_token = vlm.manifest.prompt.image_token_id
    forced = tuple(takewhile(lambda token: token != image_token, answer))
    prepared = [vlm.pipeline.prepare(picture) for picture in pictures]
    images = tuple((features(vlm, image), vlm.pipeline.encoder.compute(image).embeddings) for image in prepared)
    token_ids, logits = _logits(
        vlm, conversation(one.question, pictures, vlm.manifest.prompt.system_prompt), prepared, images, forced
    )
    return Asked(images, answer, forced, token_ids, logits)


def features(vlm: VLM, image: ImageInput) -> Rows:
    """What the projector gets, [rows, width], without the rows that pad windows or tiles (native resolution):
    transformers has none. A row may stand for several patches, side by side.
    """
    rows = vlm.pipeline.encoder.features(image)
    rows = rows.reshape(-1, rows.shape[-1])
    kept = image.prepared.feeds.get("valid")
    return rows if kept is None else rows[kept.reshape(len(rows), -1).any(axis=1)]


def conversation(question: str, images: tuple[Image.Image, ...], system: str | None) -> list[Message]:
    """One user message, the images before the text; the bundle's system prompt before it."""
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in images]
    return [*system_message(system), {"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def _logits(
    vlm: VLM,
    messages: list[Message],
    prepared: list[ImageInput],
    images: tuple[tuple[Rows, Rows], ...],
    forced: tuple[int, ...],
) -> tuple[NDArray[np.int64], Rows]:
    """Token ids [S] of the prompt with `forced` behind it, and logits [R, vocab] of those that are text."""
    prompt = vlm.pipeline.assemble(messages, prepared, vlm.context_tokens)
    context = vlm.pipeline.new_context(min(vlm.context_tokens, len(prompt) + len(forced)))
    text = np.flatnonzero(prompt.token_ids != vlm.manifest.prompt.image_token_id)
    logits = context.score(prompt, lambda number: images[number][1], text)
    if not forced:
        return prompt.token_ids, logits
    more = np.array(forced, dtype=np.int64)
    return np.concatenate([prompt.token_ids, more]), np.concatenate([logits, context.peek(more)])
