"""The measurements: graphs, decoder, free answers, sensitivity to images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_export.reference import Reference
from edgevlm_runtime import VLM
from edgevlm_runtime.certificate import DecoderFigures, GreedyFigures, ImageFigures, Sensitivity
from edgevlm_runtime.prompt import Message

Rows = NDArray[np.float32]


def image_figures(vlm: VLM, reference: Reference, image: Image.Image) -> tuple[ImageFigures, Rows, Rows]:
    """Figures of one image, the bundle's embeddings, and the reference's; both [tokens, hidden]."""
    prepared = vlm.prepare(image)
    ours, theirs = vlm.encoder.compute(prepared).embeddings, reference.encode_image(image)
    features, kept = vlm.encoder.features(prepared), prepared.prepared.feeds.get("valid")
    features = features.reshape(-1, features.shape[-1])
    if kept is not None:  # windows are padded in the bundle (native resolution), and not in transformers
        features = features[kept.reshape(-1).astype(bool)]
    comparable = features.shape == theirs[0].shape
    figures = ImageFigures(
        vision_cosine=cosine(features, theirs[0]) if comparable else None,
        vision_max_abs=max_abs(features, theirs[0]) if comparable else None,
        embeddings_cosine=cosine(ours, theirs[1]),
        embeddings_max_abs=max_abs(ours, theirs[1]),
    )
    return figures, ours, theirs[1]


def cosine(a: Rows, b: Rows) -> float:
    """The smallest cosine of corresponding rows; 0 for other shapes, and where a row is all zeros in one alone."""
    if a.shape != b.shape:
        return 0.0
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=-1) * np.linalg.norm(wide_b, axis=-1)
    products = (wide_a * wide_b).sum(-1)
    both_zero = (np.abs(wide_a).max(-1) == 0) & (np.abs(wide_b).max(-1) == 0)
    values = np.where(both_zero, 1.0, np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))
    return float(values.min())


def max_abs(a: Rows, b: Rows) -> float:
    """Largest absolute difference; the largest value of either for other shapes."""
    if a.shape != b.shape:
        return float(max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)))
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))


class TeacherForced:
    """Collects divergences of next-token distributions over prompts whose tokens both get."""

    def __init__(self) -> None:
        self._kl: list[NDArray[np.float64]] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(
        self, vlm: VLM, reference: Reference, question: str, images: Sequence[Image.Image], free: Sequence[int]
    ) -> None:
        """One prompt with `free`, the tokens of the reference's own answer, behind it."""
        image_token = vlm.manifest.prompt.image_token_id
        answer = list(takewhile(lambda token: token != image_token, free))  # it would ask for another image
        ids, theirs = reference.prompt_logits(question, images, answer)
        ours = bundle_logits(vlm, question, images, answer)
        if not np.array_equal(ours[0], ids):
            # another tokenizer or another number of image tokens: nothing about the two can be compared
            self._kl.append(np.array([np.inf]))
            self._same.append(np.array([False]))
            return
        text = ids != image_token  # what is predicted within an image is never used
        self._kl.append(divergence(theirs[text], ours[1][text]))
        self._same.append(theirs[text].argmax(-1) == ours[1][text].argmax(-1))

    def figures(self) -> DecoderFigures:
        """Over everything added."""
        kl, same = np.concatenate(self._kl), np.concatenate(self._same)
        return DecoderFigures(
            positions=int(kl.size),
            kl_mean=_finite(float(kl.mean())),
            kl_p99=_finite(float(np.quantile(kl, 0.99, method="higher"))),
            top1_agreement=float(same.mean()),
        )


def bundle_logits(
    vlm: VLM, question: str, images: Sequence[Image.Image], continuation: Sequence[int]
) -> tuple[NDArray[np.int64], Rows]:
    """As `Reference.prompt_logits`: token ids [S] and logits [S, vocab], `continuation` after the prompt."""
    inputs = [vlm.prepare(image) for image in images]
    room = vlm.context_tokens
    prompt = vlm.assemble(conversation(question, len(images)), inputs, room)
    context = vlm.new_context(min(room, len(prompt) + len(continuation)))
    embeddings = [vlm.encoder.compute(image).embeddings for image in inputs]
    logits = context.score(prompt, embeddings.__getitem__)
    if not continuation:
        return prompt.token_ids, logits
    more = np.array(continuation, dtype=np.int64)
    return np.concatenate([prompt.token_ids, more]), np.concatenate([logits, context.peek(more)])


def conversation(question: str, images: int) -> list[Message]:
    """One user message, the images before the text."""
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def divergence(reference: Rows, other: Rows) -> NDArray[np.float64]:
    """KL(reference || other) of each row's softmax [n], in nats; infinite where `other` is not a number."""
    p, q = (_log_softmax(logits) for logits in (reference, other))
    kl = (np.exp(p) * (p - q)).sum(-1)
    return np.where(np.isfinite(kl), np.maximum(kl, 0.0), np.inf)


@dataclass(frozen=True, slots=True)
class Answered:
    """One question answered greedily by both, as token ids."""

    question: str
    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def figures(self, image: str | None) -> GreedyFigures:
        """`image`: the name of the picture it was about."""
        pairs = enumerate(zip(self.ours, self.theirs, strict=False))
        shorter = min(len(self.ours), len(self.theirs))
        first = next((i for i, (a, b) in pairs if a != b), shorter)
        return GreedyFigures(self.question, image, len(self.theirs), None if self.ours == self.theirs else first)


def answer_both(vlm: VLM, reference: Reference, question: str, images: list[Image.Image], new: int) -> Answered:
    """Both answer freely, `new` tokens at most."""
    theirs = reference.answer(question, images, max_new_tokens=new).token_ids
    ours = vlm.ask(images, question, max_new_tokens=new, temperature=0.0, logprobs=False).token_ids
    return Answered(question, ours, theirs)


def sensitivity(embeddings: Mapping[str, Sequence[Rows]], answers: Mapping[str, Answered]) -> Sensitivity:
    """By image: `embeddings`, the bundle's and the reference's, and what both answered.

    Distances are compared for every pair of images, answers for pairs that were asked the same.
    """
    ratios, follow = [], []
    for a, b in combinations(embeddings, 2):
        ours, theirs = (_distance(embeddings[a][side], embeddings[b][side]) for side in (0, 1))
        if theirs > 0:
            ratios.append(ours / theirs)
        if answers[a].question == answers[b].question and answers[a].theirs != answers[b].theirs:
            follow.append(answers[a].ours != answers[b].ours)
    return Sensitivity(
        pairs=len(ratios),
        least_ratio=min(ratios, default=1.0),
        answers_follow=sum(follow) / len(follow) if follow else None,
    )


def _distance(a: Rows, b: Rows) -> float:
    """Of the mean embeddings, since images may differ in their number of tokens."""
    return float(np.linalg.norm(a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)))


def _log_softmax(logits: Rows) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def _finite(value: float) -> float:
    """JSON has no infinity."""
    return value if np.isfinite(value) else 1e9
