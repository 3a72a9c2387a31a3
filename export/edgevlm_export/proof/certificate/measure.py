"""The measurements: graphs, decoder, free answers, sensitivity to images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgevlm_export.proof.certificate.asked import Asked
from edgevlm_export.reference import Read
from edgevlm_runtime.bundle.certificate import DecoderFigures, GreedyFigures, ImageFigures, Sensitivity

Rows = NDArray[np.float32]


def image_figures(ours: tuple[Rows, Rows], theirs: tuple[Rows, Rows]) -> ImageFigures:
    """Figures of one image, of the bundle's and the reference's (features, embeddings)."""
    comparable = ours[0].shape == theirs[0].shape
    return ImageFigures(
        vision_cosine=cosine(ours[0], theirs[0]) if comparable else None,
        vision_max_abs=max_abs(ours[0], theirs[0]) if comparable else None,
        embeddings_cosine=cosine(ours[1], theirs[1]),
        embeddings_max_abs=max_abs(ours[1], theirs[1]),
    )


@np.errstate(invalid="ignore")
def cosine(a: Rows, b: Rows) -> float:
    """The smallest cosine of corresponding rows; 0 for other shapes, and where one row is all zeros, or no numbers, and
    the other is not.
    """
    if a.shape != b.shape:
        return 0.0
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=-1) * np.linalg.norm(wide_b, axis=-1)
    products = (wide_a * wide_b).sum(-1)
    both_zero = (np.abs(wide_a).max(-1) == 0) & (np.abs(wide_b).max(-1) == 0)
    values = np.where(both_zero, 1.0, np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))
    return float(np.where(np.isnan(values), 0.0, values).min())


@np.errstate(invalid="ignore")
def max_abs(a: Rows, b: Rows) -> float:
    """Largest absolute difference; the largest value of either for other shapes."""
    if a.shape != b.shape:
        return _finite(float(max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))))
    return _finite(float(np.abs(a.astype(np.float64) - b).max(initial=0.0)))


def decoder_figures(pairs: Iterable[tuple[Asked, Read]]) -> DecoderFigures | None:
    """How far next-token distributions over the same tokens are apart; None without any."""
    kl, same = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)]
    for ours, theirs in pairs:
        if not np.array_equal(ours.token_ids, theirs.token_ids) or ours.logits.shape != theirs.logits.shape:
            # another tokenizer, vocabulary or number of image tokens: nothing about the two can be compared
            kl.append(np.array([np.inf]))
            same.append(np.array([False]))
            continue
        kl.append(divergence(theirs.logits, ours.logits))
        same.append(theirs.logits.argmax(-1) == ours.logits.argmax(-1))
    values, agree = np.concatenate(kl), np.concatenate(same)
    if not values.size:
        return None
    return DecoderFigures(
        positions=int(values.size),
        kl_mean=_finite(float(values.mean())),
        kl_p99=_finite(float(np.quantile(values, 0.99, method="higher"))),
        top1_agreement=float(agree.mean()),
    )


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
    whole: bool = True
    """Whether `theirs` is the reference's whole answer, or its beginning up to the first token that differs."""

    def figures(self, image: str | None) -> GreedyFigures:
        """`image`: the name of the picture it was about."""
        return GreedyFigures(
            self.question, image, len(self.theirs), first_difference(self.ours, self.theirs, self.whole)
        )

    def differs(self, other: Answered) -> bool:
        """Whether the reference is known to have answered otherwise here than there."""
        return first_difference(self.theirs, other.theirs, self.whole and other.whole) is not None


def first_difference(one: Sequence[int], other: Sequence[int], whole: bool = True) -> int | None:
    """Number of the first token that differs, None where none does. Unless `whole`, they are compared as far as the
    shorter goes.
    """
    pairs = enumerate(zip(one, other, strict=False))
    shorter = min(len(one), len(other))
    found = next((number for number, (a, b) in pairs if a != b), None)
    return shorter if found is None and whole and len(one) != len(other) else found


def sensitivity(embeddings: Mapping[str, Sequence[Rows]], answers: Mapping[str, Answered]) -> Sensitivity:
    """By image: `embeddings`, the bundle's and the reference's, and what both answered.

    Distances are compared for every pair of images, answers for pairs that were asked the same.
    """
    ratios, follow = [], []
    for a, b in combinations(embeddings, 2):
        ours, theirs = (_distance(embeddings[a][side], embeddings[b][side]) for side in (0, 1))
        if theirs > 0 and np.isfinite(theirs):
            ratios.append(ours / theirs if np.isfinite(ours) else 0.0)
        if answers[a].question == answers[b].question and answers[a].differs(answers[b]):
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
