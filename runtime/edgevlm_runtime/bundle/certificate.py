"""The bundle's certificate: how close it came to the PyTorch model when it was exported, as `certificate.json`.

The exporter writes it (`edgevlm_export.proof.certificate`), a device reads it. Figures are of the bundle as it lies on
disk, run by this runtime, against transformers in float32, on named inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.errors import BundleError, BundleIncomplete
from edgevlm_runtime.reading import known, read_json

CERTIFICATE_NAME = "certificate.json"
FORMAT = 1
PASSED, MISSED, ALLOWED, NOT_CHECKED = "passed", "missed", "drift allowed", "not checked"


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """One image through vision encoder and projector. Cosines and errors are the worst over the image's rows."""

    vision_cosine: float | None
    """Cosine of the vision encoder's rows; None where they are not the reference's one by one."""
    vision_max_abs: float | None
    """Largest difference of two values of theirs."""
    embeddings_cosine: float
    """Cosine of the image embeddings, which the projector makes of them."""
    embeddings_max_abs: float
    """Largest difference of two values of theirs."""
    same_choice: float | None = None
    """Where image tokens are left out: share of the reference's choice that is the bundle's too. Embeddings are
    compared with the reference's of the same places."""


@dataclass(frozen=True, slots=True)
class DecoderFigures:
    """Teacher-forced: both get the same tokens, each its own image embeddings, and predict every next text token."""

    positions: int
    """How many tokens were predicted."""
    kl_mean: float
    """Mean Kullback-Leibler divergence of the bundle's distribution from the reference's, in nats per position."""
    kl_p99: float
    """Its 99th percentile."""
    top1_agreement: float
    """Share of positions with the same likeliest token."""


@dataclass(frozen=True, slots=True)
class GreedyFigures:
    """One prompt answered freely by both."""

    prompt: str
    """The question."""
    image: str | None
    """Name of its image."""
    tokens: int
    """How many the reference generated."""
    first_divergence: int | None
    """Number (from 0) of the first token that differs; None when none does."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Do different images make a difference? A vision graph that sees nothing is fluent all the same."""

    pairs: int
    """Pairs of images compared."""
    least_ratio: float
    """Smallest ratio, over pairs of images, of the distance between the bundle's embeddings to the reference's."""
    answers_follow: float | None
    """Among pairs that the reference answers differently, the share that the bundle answers differently too; None
    where the reference answers all the same. Compared are images that were asked the same question."""


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """What fewer image tokens cost on pictures of the task: greedy answers of the bundle's decoder that are others than
    with all tokens of the same images, which PyTorch encoded."""

    kept: int
    """Tokens of an image, or of one of its tiles."""
    of: int
    """How many the checkpoint makes of it."""
    method: str
    """How they were chosen."""
    questions: int
    """How many were asked."""
    changed: float
    """Share of them that are answered otherwise than with all tokens."""
    random_changed: float
    """The same with as many tokens drawn at random: what a choice has to be better than."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What figures must reach."""

    vision_cosine: float
    """At least."""
    embeddings_cosine: float
    """At least."""
    kl_mean: float
    """At most, on prompts with images."""
    kl_p99: float
    """At most."""
    text_kl_mean: float
    """At most, on prompts without images, which a model that was trained on pictures alone has never seen: it has more
    room."""
    top1_agreement: float
    """At least."""
    sensitivity: float
    """At least, of `least_ratio`."""
    answers_follow: float
    """At least."""
    changed: float = 0.1
    """At most, of the answers that fewer image tokens change."""


AT_LEAST = ("vision_cosine", "embeddings_cosine", "top1_agreement", "sensitivity", "answers_follow")
"""Thresholds that a figure must reach from below; of the others it must stay below."""


WEIGHTS = "weights"
"""`Miss.what` of a tensor that the export read otherwise than transformers does."""


@dataclass(frozen=True, slots=True)
class Miss:
    """One thing that does not hold; `str(miss)` says it in words."""

    what: str
    """The threshold's name; "prompt" where the two write a prompt differently, "answer" where they answer it so,
    "weights" where the export read another tensor than transformers loads."""
    where: str
    """What was measured, which prompt, or which tensor."""
    figure: float | None = None
    """What was measured; of tensors, how many differ."""
    limit: float | None = None
    """What it must reach."""
    token: int | None = None
    """The first token that differs, from 1, in a prompt or an answer."""

    def __str__(self) -> str:
        if self.what == "prompt":
            parts = "tokenizer, chat template or number of image tokens"
            return f"{parts}: {self.where} is another prompt from token {self.token} on"
        if self.what == "answer":
            return f"answer to {self.where}: differs from PyTorch's from token {self.token} on"
        if self.what == WEIGHTS:
            return f"weights: {self.where} is not what transformers loads ({self.figure:g} tensors differ)"
        relation = "at least" if self.what in AT_LEAST else "at most"
        return f"{self.where}: {self.what} is {self.figure:.6g}, {relation} {self.limit:g} is needed"

    def same_thing(self, other: Miss | str) -> bool:
        """Whether both are about one threshold, whichever input was the worst, or about one prompt. Certificates of
        early exporters hold sentences."""
        if isinstance(other, str):
            return f": {self.what} is " in other or self.where in other
        prompts = self.what in ("prompt", "answer")
        return self.what == other.what and (not prompts or self.where == other.where)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Everything that was measured, and what was asked for."""

    format: int
    """Version of the certificate's format."""
    reference: str
    """The PyTorch model: name and dtype."""
    precision: dict[str, str]
    """How weights are stored, by graph."""
    versions: dict[str, str]
    """Packages that measured."""
    seed: int
    """Of the inputs that were drawn."""
    thresholds: Thresholds
    """What was asked for."""
    images: dict[str, ImageFigures] = field(default_factory=dict)
    """Vision encoder and projector, by image."""
    decoder: DecoderFigures | None = None
    """On prompts with images."""
    decoder_text: DecoderFigures | None = None
    """On prompts without images: the decoder alone."""
    greedy: tuple[GreedyFigures, ...] = ()
    """Answers of both, token by token."""
    sensitivity: Sensitivity | None = None
    """Do different images make a difference?"""
    image_tokens: TokenFigures | None = None
    """What leaving out image tokens costs; None where none are, or that was not measured."""
    missed: tuple[Miss | str, ...] = ()
    """What does not hold; sentences in certificates of early exporters."""
    allowed_drift: str | None = None
    """Why the bundle was made all the same."""
    not_checked: str | None = None
    """Why nothing (or not everything) was measured."""

    @property
    def verdict(self) -> str:
        """One of `PASSED`, `MISSED`, `ALLOWED`, `NOT_CHECKED`."""
        if self.not_checked is not None:
            return NOT_CHECKED
        if not self.missed:
            return PASSED
        return MISSED if self.allowed_drift is None else ALLOWED


def encode(certificate: Certificate) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(certificate), indent=2) + b"\n"


def decode(data: bytes) -> Certificate:
    """The certificate in `data`. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(data, type=known(Certificate))


def read_certificate(bundle: Bundle) -> Certificate | None:
    """The bundle's certificate; None when it has none. Raises `BundleError` when it is damaged."""
    if CERTIFICATE_NAME not in bundle.manifest.files:
        return None
    file = bundle.file(CERTIFICATE_NAME)
    again = "export the model again"
    try:
        return read_json(file, Certificate, "certificate", error=BundleError, remedy=again)
    except FileNotFoundError:
        raise BundleIncomplete(f"missing file: {file}: {again}") from None
