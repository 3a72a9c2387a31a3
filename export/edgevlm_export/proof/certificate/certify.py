"""Put the measurements together, judge them, and read them back."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

from edgevlm_export.planning.plan import Progress
from edgevlm_export.proof.certificate import fewer, inputs, measure
from edgevlm_export.proof.certificate.asked import Asked, Rows, ask, conversation
from edgevlm_export.proof.certificate.thresholds import KV_CACHE, judge, thresholds_for
from edgevlm_export.reference import AnyReference, Forced, Read
from edgevlm_export.streaming.inputs import ImageFile
from edgevlm_runtime import VLM
from edgevlm_runtime.bundle.certificate import (
    CERTIFICATE_NAME,
    FORMAT,
    Certificate,
    GreedyFigures,
    ImageFigures,
    Miss,
    Thresholds,
    encode,
)
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.options import RuntimeOptions

PACKAGES = ("edgevlm-runtime", "onnxruntime", "torch", "transformers")
NEW_TOKENS = 24
"""Of an answer that is generated freely, or forced on both."""
CONTEXT = 8192
NOISE = Thresholds(
    vision_cosine=2e-3,
    embeddings_cosine=2e-3,
    kl_mean=0.02,
    kl_p99=0.2,
    text_kl_mean=0.2,
    top1_agreement=0.03,
    sensitivity=0.05,
    answers_follow=0.2,
)
"""How far two measurements of the same bundle may be apart, on different processors: kernels of other instruction sets
round otherwise, and int8 activations turn that into steps."""

ERROR_NOISE = 2.0
"""Likewise, how many times larger the largest error of one may be than the other's, ..."""
LEAST_ERROR = 1e-3
"""... over this, which rounding alone may give."""
_ERRORS = {
    "vision_max_abs": "image preprocessing or vision encoder, largest error",
    "embeddings_max_abs": "vision encoder and projector, largest error",
}


def certify(bundle: Bundle, reference: AnyReference, progress: Progress = lambda *_: None) -> Certificate:
    """Measure `bundle`, whose files the caller has checked, against `reference`.

    The bundle answers first; the reference then reads along what it said. So the figures are the same whether the
    reference is in memory or runs layer by layer.
    """
    named = inputs.named_inputs()
    asked = _ask_bundle(bundle, named, progress)
    gc.collect()  # the bundle's weights go before the reference's come
    images: dict[str, ImageFigures] = {}
    embeddings: dict[str, tuple[Rows, Rows]] = {}
    for number, (one, ours) in enumerate(zip(named, asked, strict=True)):
        progress("images in PyTorch", number, len(named))
        for (features, embedded), picture in zip(ours.images, one.pictures(), strict=True):
            figures, rows = _encoded(reference, picture, (features, embedded))
            images[str(one.image)] = figures
            embeddings[str(one.image)] = (embedded, rows)
    progress("images in PyTorch", len(named), len(named))
    system = bundle.manifest.prompt.system_prompt
    forced = [
        Forced(conversation(one.question, one.pictures(), system), one.pictures(), _readable(ours.forced, reference))
        for one, ours in zip(named, asked, strict=True)
    ]
    read = list(reference.read(forced, NEW_TOKENS, lambda done, total: progress("prompts in PyTorch", done, total)))
    answered = [
        measure.Answered(one.question, ours.answer, theirs.own, theirs.whole)
        for one, ours, theirs in zip(named, asked, read, strict=True)
    ]
    pairs = list(zip(named, asked, read, strict=True))
    measured = replace(
        _empty(bundle, reference.name),
        images=images,
        decoder=measure.decoder_figures((ours, theirs) for one, ours, theirs in pairs if one.image is not None),
        decoder_text=measure.decoder_figures((ours, theirs) for one, ours, theirs in pairs if one.image is None),
        greedy=tuple(answer.figures(one.image) for one, answer in zip(named, answered, strict=True)),
        sensitivity=measure.sensitivity(
            embeddings,
            {one.image: answer for one, answer in zip(named, answered, strict=True) if one.image is not None},
        ),
    )
    return replace(measured, missed=(*_other_tokens(pairs), *_missed(measured)))


def _encoded(reference: AnyReference, picture: ImageFile, ours: tuple[Rows, Rows]) -> tuple[ImageFigures, Rows]:
    """Figures of one image, of which `ours` are features and embeddings, and the reference's rows of the same places:
    all of them, but where image tokens are left out."""
    features, rows = reference.encode_image(picture)
    if reference.choosing is None:
        return measure.image_figures(ours, (features, rows)), rows
    found = fewer.nearest(ours[1], rows)
    figures = measure.image_figures(ours, (features, rows[found]))
    return replace(figures, same_choice=fewer.same_choice(reference, found)), rows[found]


def _readable(answer: tuple[int, ...], reference: AnyReference) -> tuple[int, ...]:
    """As far as the reference has these tokens, and none is an image's: it may be another model altogether."""
    config = reference.model.config
    vocabulary = int(config.get_text_config().vocab_size)
    return tuple(takewhile(lambda token: token < vocabulary and token != config.image_token_id, answer))


def _other_tokens(pairs: Sequence[tuple[inputs.NamedInput, Asked, Read]]) -> Iterator[Miss]:
    """Prompts that the two do not write alike."""
    for one, ours, theirs in pairs:
        place = measure.first_difference(ours.token_ids.tolist(), theirs.token_ids.tolist())
        if place is not None:
            yield Miss("prompt", _about(one), token=place + 1)


def _about(one: inputs.NamedInput | GreedyFigures) -> str:
    """A prompt in words."""
    prompt = one.question if isinstance(one, inputs.NamedInput) else one.prompt
    return f"{prompt!r} about {one.image!r}" if one.image else repr(prompt)


def _ask_bundle(bundle: Bundle, named: Sequence[inputs.NamedInput], progress: Progress) -> list[Asked]:
    """The bundle is in memory only in here."""
    vlm = VLM(
        bundle,
        RuntimeOptions(engine="ort", max_context=min(CONTEXT, bundle.manifest.decoder.max_context), verify="size"),
    )
    asked = []
    for number, one in enumerate(named):
        progress("asking the bundle", number, len(named))
        asked.append(ask(vlm, one, NEW_TOKENS))
    progress("asking the bundle", len(named), len(named))
    return asked


def not_checked(bundle: Bundle, model: str, reason: str) -> Certificate:
    """A certificate that says why nothing was measured."""
    return replace(_empty(bundle, model), not_checked=reason)


def write(folder: Path, certificate: Certificate) -> None:
    """Put it into a bundle that has no manifest yet."""
    (folder / CERTIFICATE_NAME).write_bytes(encode(certificate))


def differences(stored: Certificate, found: Certificate) -> list[str]:
    """What a second measurement does not confirm, in words; noise of other processors is allowed for (`NOISE`)."""
    if stored.not_checked is not None:
        return []
    if set(stored.images) != set(found.images):
        return ["the stored certificate was measured on other images: export the model again"]
    changed = list(_other_errors(stored, found))
    for name, (before, label) in _figures(stored).items():
        after, allowed = _figures(found)[name][0], getattr(NOISE, name)
        if before is not None and after is not None and abs(before - after) > allowed:
            changed.append(f"{label}: {name} was {before:.6g} at export and is {after:.6g} here")
    return changed


def _other_errors(stored: Certificate, found: Certificate) -> Iterator[str]:
    """Largest errors and greedy answers that a second measurement does not confirm, in words.

    Which token of an answer is the first to differ is not compared: one rounding decides it.
    """
    for name, part in _ERRORS.items():
        sizes = [
            max((size for one in which.images.values() if (size := getattr(one, name)) is not None), default=None)
            for which in (stored, found)
        ]
        before, after = sizes
        if before is None or after is None:
            continue
        if not max(before, after) <= ERROR_NOISE * min(before, after) + LEAST_ERROR:
            yield f"{part}: {name} was {before:.6g} at export and is {after:.6g} here"
    same = [[one.first_divergence is None for one in which.greedy] for which in (stored, found)]
    if len(same[0]) != len(same[1]):
        yield "the stored certificate was measured on other prompts: export the model again"
    elif abs(sum(same[0]) - sum(same[1])) > NOISE.answers_follow * len(same[0]):
        yield (
            f"greedy answers: {sum(same[0])} of {len(same[0])} were PyTorch's at export, "
            f"{sum(same[1])} of {len(same[1])} are here"
        )


def allowed_misses(stored: Certificate, found: Certificate) -> tuple[Miss | str, ...]:
    """Of what `found` misses, what the stored certificate, whose drift was allowed, misses as well: the same
    threshold, or the same prompt. By how much is what `differences` compares."""
    return tuple(
        miss
        for miss in found.missed
        if isinstance(miss, Miss) and any(miss.same_thing(known) for known in stored.missed)
    )


def _empty(bundle: Bundle, model: str) -> Certificate:
    precision = {name: graph.precision for name, graph in bundle.manifest.graphs.items()}
    if bundle.manifest.decoder.kv.scales is not None:
        precision[KV_CACHE] = bundle.manifest.decoder.kv.dtype
    return Certificate(
        format=FORMAT,
        reference=model,
        precision=precision,
        versions={package: _version(package) for package in PACKAGES},
        seed=inputs.SEED,
        thresholds=thresholds_for(precision),
    )


def _missed(certificate: Certificate) -> Iterator[Miss]:
    figures = _figures(certificate)
    values = {name: value for name, (value, _) in figures.items()}
    where = {name: label for name, (_, label) in figures.items()}
    yield from judge(certificate.thresholds, values, where)
    exact = set(certificate.precision.values()) == {"fp32"}
    for one in certificate.greedy if exact else ():
        if one.first_divergence is not None:
            yield Miss("answer", _about(one), token=one.first_divergence + 1)


def _figures(certificate: Certificate) -> dict[str, tuple[float | None, str]]:
    """By threshold: the worst figure, and what it was measured on."""
    images, decoder, text = certificate.images, certificate.decoder, certificate.decoder_text
    cosines = {name: one.vision_cosine for name, one in images.items() if one.vision_cosine is not None}
    vision = min(cosines, key=cosines.__getitem__, default=None)
    worst = min(images, key=lambda name: images[name].embeddings_cosine, default=None)
    looks = certificate.sensitivity
    return {
        "vision_cosine": (
            cosines[vision] if vision else None,
            f"image preprocessing or vision encoder, image {vision!r}",
        ),
        "embeddings_cosine": (
            images[worst].embeddings_cosine if worst else None,
            f"vision encoder and projector, embeddings of image {worst!r}",
        ),
        "kl_mean": (decoder.kl_mean if decoder else None, "decoder, next-token distributions"),
        "kl_p99": (decoder.kl_p99 if decoder else None, "decoder, next-token distributions"),
        "text_kl_mean": (text.kl_mean if text else None, "decoder, next-token distributions on text alone"),
        "top1_agreement": (decoder.top1_agreement if decoder else None, "decoder, likeliest token"),
        "sensitivity": (looks.least_ratio if looks else None, "image sensitivity, distance between embeddings"),
        "answers_follow": (looks.answers_follow if looks else None, "image sensitivity, answers"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:  # onnxruntime may be onnxruntime-gpu
        return "other"
