"""What a bundle must reach: the thresholds of its graphs' formats together."""

from __future__ import annotations

from collections.abc import Mapping

from edgevlm_export.precision import thresholds_of
from edgevlm_export.precision.thresholds import EXACT
from edgevlm_runtime.bundle.certificate import AT_LEAST, Miss, Thresholds

KV_CACHE = "kv_cache"


def thresholds_for(precision: Mapping[str, str]) -> Thresholds:
    """For a bundle, given the format of each graph. A figure that depends on all three graphs is judged by the
    loosest of their thresholds.

    `KV_CACHE` among them, where the cache is quantized, is a part of the decoder.
    """
    of = {graph: thresholds_of(name) for graph, name in precision.items()}
    vision, projector, decoder = (of[graph] for graph in ("vision_encoder", "projector", "decoder"))
    decoder = _loosest(decoder, of.get(KV_CACHE, EXACT))
    loosest = _loosest(vision, projector, decoder)
    seen = _loosest(vision, projector)
    return Thresholds(
        vision_cosine=vision.vision_cosine,
        embeddings_cosine=seen.embeddings_cosine,
        kl_mean=loosest.kl_mean,
        kl_p99=loosest.kl_p99,
        text_kl_mean=decoder.text_kl_mean,
        top1_agreement=loosest.top1_agreement,
        sensitivity=seen.sensitivity,
        answers_follow=loosest.answers_follow,
    )


def _loosest(*thresholds: Thresholds) -> Thresholds:
    return max(thresholds, key=lambda some: some.kl_mean)


def judge(thresholds: Thresholds, figures: Mapping[str, float | None], where: Mapping[str, str]) -> list[Miss]:
    """Thresholds that `figures` (by the threshold's name; None was not measured) do not reach.

    `where` says what each figure was measured on. A figure that is not a number reaches nothing.
    """
    missed = []
    for name, figure in figures.items():
        limit: float = getattr(thresholds, name)
        if figure is not None and not (figure >= limit if name in AT_LEAST else figure <= limit):
            missed.append(Miss(name, where[name], figure, limit))
    return missed
