"""A certificate in short: the worst of its figures, graph by graph, as `edgevlm verify --reference` shows them."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm_runtime.bundle.certificate import Certificate


@dataclass(frozen=True, slots=True)
class GraphParity:
    """The outputs of one graph beside the reference's, over all images and their rows."""

    cosine_min: float | None
    """The smallest cosine; null where nothing was compared."""
    max_abs: float | None
    """The largest difference of two values."""


@dataclass(frozen=True, slots=True)
class DecoderParity:
    """What the decoder predicts beside what the reference does."""

    kl_mean: float
    """Mean Kullback-Leibler divergence of the bundle's distribution from the reference's, in nats per token."""
    kl_p99: float
    """Its 99th percentile."""
    top1_agreement: float
    """Share of positions with the same likeliest token."""


@dataclass(frozen=True, slots=True)
class GreedyParity:
    """Prompts answered freely by both."""

    prompts: int
    """How many were asked."""
    identical: int
    """How many were answered with the same tokens."""


@dataclass(frozen=True, slots=True)
class SensitivityParity:
    """Whether different images make a difference."""

    least_ratio: float
    """Smallest ratio, over pairs of images, of the distance between the bundle's embeddings to the reference's."""
    answers_follow: float | None
    """Among pairs that the reference answers differently, the share that the bundle answers differently too."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How close a bundle is to the PyTorch model, graph by graph."""

    vision_encoder: GraphParity
    """Its features."""
    projector: GraphParity
    """The image embeddings, which also have the vision encoder's error in them."""
    decoder: DecoderParity | None
    """Null where it was not measured."""
    greedy: GreedyParity
    """Answers of both, token by token."""
    sensitivity: SensitivityParity | None
    """Null where it was not measured."""


def parity(certificate: Certificate) -> Parity:
    """The worst of the certificate's figures."""
    images = certificate.images.values()
    cosines = [one.vision_cosine for one in images if one.vision_cosine is not None]
    errors = [one.vision_max_abs for one in images if one.vision_max_abs is not None]
    decoder, follow, greedy = certificate.decoder, certificate.sensitivity, certificate.greedy
    return Parity(
        vision_encoder=GraphParity(min(cosines, default=None), max(errors, default=None)),
        projector=GraphParity(
            min((one.embeddings_cosine for one in images), default=None),
            max((one.embeddings_max_abs for one in images), default=None),
        ),
        decoder=None if decoder is None else DecoderParity(decoder.kl_mean, decoder.kl_p99, decoder.top1_agreement),
        greedy=GreedyParity(len(greedy), sum(one.first_divergence is None for one in greedy)),
        sensitivity=None if follow is None else SensitivityParity(follow.least_ratio, follow.answers_follow),
    )
