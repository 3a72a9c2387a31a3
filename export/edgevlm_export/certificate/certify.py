"""Put the measurements together, judge them, and read them back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from edgevlm_export.certificate import inputs, measure
from edgevlm_export.certificate.thresholds import judge, thresholds_for
from edgevlm_export.plan import Progress
from edgevlm_export.reference import Reference
from edgevlm_runtime import VLM
from edgevlm_runtime.bundle import Bundle
from edgevlm_runtime.certificate import (
    CERTIFICATE_NAME,
    FORMAT,
    Certificate,
    GreedyFigures,
    ImageFigures,
    Thresholds,
    encode,
)
from edgevlm_runtime.options import RuntimeOptions

STAGE = "measuring parity"
PACKAGES = ("edgevlm-runtime", "onnxruntime", "torch", "transformers")
NEW_TOKENS = 24
"""Of an answer that is generated freely, or forced on both."""
CONTEXT = 8192
NOISE = Thresholds(2e-3, 2e-3, 0.02, 0.2, 0.2, 0.03, 0.05, 0.2)
"""How far two measurements of the same bundle may be apart, on different processors: kernels of other instruction sets
round otherwise, and int8 activations turn that into steps."""


def certify(bundle: Bundle, reference: Reference, progress: Progress = lambda *_: None) -> Certificate:
    """Measure `bundle`, whose files the caller has checked, against `reference`."""
    vlm = VLM(bundle, RuntimeOptions(max_context=min(CONTEXT, bundle.manifest.decoder.max_context), verify="size"))
    total = len(inputs.IMAGES) + len(inputs.TEXTS)
    images: dict[str, ImageFigures] = {}
    embeddings: dict[str, list[measure.Rows]] = {}
    answers: dict[str, measure.Answered] = {}
    greedy: list[GreedyFigures] = []
    seen, text = measure.TeacherForced(), measure.TeacherForced()
    for number, (name, draw) in enumerate(inputs.IMAGES.items()):
        progress(STAGE, number, total)
        image, question = draw(), inputs.QUESTIONS[number % len(inputs.QUESTIONS)]
        images[name], *embeddings[name] = measure.image_figures(vlm, reference, image)
        answers[name] = answered = measure.answer_both(vlm, reference, question, [image], NEW_TOKENS)
        greedy.append(answered.figures(name))
        seen.add(vlm, reference, question, [image], answered.theirs)
    for number, question in enumerate(inputs.TEXTS):
        progress(STAGE, len(inputs.IMAGES) + number, total)
        answered = measure.answer_both(vlm, reference, question, [], NEW_TOKENS)
        greedy.append(answered.figures(None))
        text.add(vlm, reference, question, [], answered.theirs)
    progress(STAGE, total, total)
    measured = replace(
        _empty(bundle, _name(reference)),
        images=images,
        decoder=seen.figures(),
        decoder_text=text.figures(),
        greedy=tuple(greedy),
        sensitivity=measure.sensitivity(embeddings, answers),
    )
    return replace(measured, missed=tuple(_missed(measured)))


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
    changed = []
    for name, (before, label) in _figures(stored).items():
        after, allowed = _figures(found)[name][0], getattr(NOISE, name)
        if before is not None and after is not None and abs(before - after) > allowed:
            changed.append(f"{label}: {name} was {before:.6g} at export and is {after:.6g} here")
    return changed


def _empty(bundle: Bundle, model: str) -> Certificate:
    precision = {name: graph.precision for name, graph in bundle.manifest.graphs.items()}
    return Certificate(
        format=FORMAT,
        reference=model,
        precision=precision,
        versions={package: _version(package) for package in PACKAGES},
        seed=inputs.SEED,
        thresholds=thresholds_for(precision),
    )


def _name(reference: Reference) -> str:
    dtype = str(reference.model.dtype).removeprefix("torch.")
    return f"{type(reference.model).__name__} {reference.folder.name}, {dtype}"


def _missed(certificate: Certificate) -> Iterator[str]:
    figures = _figures(certificate)
    values = {name: value for name, (value, _) in figures.items()}
    where = {name: label for name, (_, label) in figures.items()}
    yield from judge(certificate.thresholds, values, where)
    exact = set(certificate.precision.values()) == {"fp32"}
    for one in certificate.greedy if exact else ():
        if one.first_divergence is not None:
            about = f" about {one.image!r}" if one.image else ""
            yield f"answer to {one.prompt!r}{about}: differs from PyTorch's from token {one.first_divergence + 1} on"


def _figures(certificate: Certificate) -> dict[str, tuple[float | None, str]]:
    """By threshold: the worst figure, and what it was measured on."""
    images, decoder, text = certificate.images, certificate.decoder, certificate.decoder_text
    cosines = {name: one.vision_cosine for name, one in images.items() if one.vision_cosine is not None}
    vision = min(cosines, key=cosines.__getitem__, default=None)
    worst = min(images, key=lambda name: images[name].embeddings_cosine, default=None)
    looks = certificate.sensitivity
    return {
        "vision_cosine": (cosines[vision] if vision else None, f"vision encoder, image {vision!r}"),
        "embeddings_cosine": (
            images[worst].embeddings_cosine if worst else None,
            f"vision encoder and projector, image {worst!r}",
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
