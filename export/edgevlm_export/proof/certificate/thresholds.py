"""What a bundle must reach, by the precision of its weights.

The figures are set from what sound exports of small models show, with room for other models; float32 has none to
spare: there, anything above rounding is an error of the export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

from edgevlm_runtime.bundle.certificate import Thresholds

EXACT = Thresholds(
    vision_cosine=0.9999,
    embeddings_cosine=0.9999,
    kl_mean=1e-4,
    kl_p99=1e-3,
    text_kl_mean=1e-4,
    top1_agreement=0.99,
    sensitivity=0.98,
    answers_follow=1.0,
)
HALF = Thresholds(0.999, 0.999, 2e-3, 2e-2, 1e-2, 0.97, 0.95, 0.9)
EIGHT = Thresholds(0.98, 0.98, 0.05, 0.6, 0.3, 0.85, 0.8, 0.7)
FOUR = Thresholds(0.95, 0.95, 0.25, 2.5, 2.0, 0.7, 0.7, 0.5)

BY_PRECISION: dict[str, Thresholds] = {
    "fp32": EXACT,
    "fp16": HALF,
    "int8": EIGHT,
    "int8b": EIGHT,
    "int8w": EIGHT,
    "fp8": EIGHT,
    "int4": FOUR,
}
"""By the name of a holder, of either dialect, without its options; one that is not here counts as `FOUR`."""
KV_CACHE = "kv_cache"
_AT_LEAST = ("vision_cosine", "embeddings_cosine", "top1_agreement", "sensitivity", "answers_follow")


def thresholds_for(precision: Mapping[str, str]) -> Thresholds:
    """For a bundle, given the precision of each graph: the loosest of the three decides what depends on all.

    `KV_CACHE` among them, where the cache is quantized, is a part of the decoder.
    """
    of = {graph: BY_PRECISION.get(name.partition(":")[0], FOUR) for graph, name in precision.items()}
    vision, projector, decoder = (of[graph] for graph in ("vision_encoder", "projector", "decoder"))
    decoder = max((decoder, of.get(KV_CACHE, EXACT)), key=lambda one: astuple(one)[2])
    loosest = max((vision, projector, decoder), key=lambda one: astuple(one)[2])
    seen = max((vision, projector), key=lambda one: astuple(one)[2])
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


def judge(thresholds: Thresholds, figures: Mapping[str, float | None], where: Mapping[str, str]) -> list[str]:
    """Thresholds that `figures` (by the threshold's name; None was not measured) do not reach, in words.

    `where` says what each figure was measured on. A figure that is not a number reaches nothing.
    """
    missed = []
    for name, figure in figures.items():
        if figure is None:
            continue
        limit: float = getattr(thresholds, name)
        least = name in _AT_LEAST
        reached = figure >= limit if least else figure <= limit
        if not reached:
            relation = "at least" if least else "at most"
            missed.append(f"{where[name]}: {name} is {figure:.6g}, {relation} {limit:g} is needed")
    return missed
