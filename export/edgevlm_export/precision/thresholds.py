"""What a bundle's certificate must reach, by how many bits its weights have.

The figures are set from what sound exports of small models show, with room for other models; float32 has none to
spare: there, anything above rounding is an error of the export.
"""

from __future__ import annotations

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
HALF = Thresholds(
    vision_cosine=0.999,
    embeddings_cosine=0.999,
    kl_mean=2e-3,
    kl_p99=2e-2,
    text_kl_mean=1e-2,
    top1_agreement=0.97,
    sensitivity=0.95,
    answers_follow=0.9,
)
EIGHT = Thresholds(
    vision_cosine=0.98,
    embeddings_cosine=0.98,
    kl_mean=0.05,
    kl_p99=0.6,
    text_kl_mean=0.3,
    top1_agreement=0.85,
    sensitivity=0.8,
    answers_follow=0.7,
)
FOUR = Thresholds(
    vision_cosine=0.95,
    embeddings_cosine=0.95,
    kl_mean=0.25,
    kl_p99=2.5,
    text_kl_mean=2.0,
    top1_agreement=0.7,
    sensitivity=0.7,
    answers_follow=0.5,
)
