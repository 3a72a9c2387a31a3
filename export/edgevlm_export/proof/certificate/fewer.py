"""What fewer image tokens cost: answers about pictures of the task, with all tokens, with those that the bundle keeps,
and with as many drawn at random.

One decoder answers all three times, the bundle's own, so that nothing but the tokens differs. All of an image's rows
come from PyTorch, the random ones are among them; what is kept comes from the bundle's own vision encoder and
projector.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgevlm_export.families.choosing.random import places
from edgevlm_export.planning.plan import Progress
from edgevlm_export.preprocessing.fewer import TOKENS
from edgevlm_export.proof.certificate.measure import Rows
from edgevlm_export.proof.certificate.thresholds import judge
from edgevlm_export.reference import AnyReference
from edgevlm_export.streaming.material import ImagePrompt
from edgevlm_runtime.asking.session import Session
from edgevlm_runtime.bundle.certificate import Certificate, TokenFigures
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import FewerTokens
from edgevlm_runtime.errors import ContextOverflow
from edgevlm_runtime.images import make_processor
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.pipeline import Pipeline

logger = logging.getLogger(__name__)

ASKED = 64
"""Questions, at most."""
NEW_TOKENS = 24
CONTEXT = 8192


def nearest(rows: Rows, among: Rows) -> NDArray[np.int64]:
    """For each of `rows` [n, width] the place of the row of `among` [m, width] with the largest cosine."""
    a, b = (values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-30) for values in (rows, among))
    found: NDArray[np.int64] = (a @ b.T).argmax(-1)
    return found


def same_choice(reference: AnyReference, found: NDArray[np.int64]) -> float:
    """Share of the places that the reference chose of the image that it saw last which are among those `found`, places
    of its rows [tokens of all its tiles, width]."""
    assert reference.choosing is not None
    tiles = reference.choosing.places.numpy()
    chosen = (tiles + np.arange(len(tiles))[:, None] * reference.choosing.fewer.of).ravel()
    return float(np.isin(chosen, found).mean())


def cost(
    bundle: Bundle, reference: AnyReference, asked: Iterable[ImagePrompt], progress: Progress
) -> TokenFigures | None:
    """Answers to `asked`, as far as `ASKED` goes. The bundle's manifest says what is kept. None, with a warning, where
    no question with all the tokens of its images fits the context."""
    fewer = bundle.manifest.image.fewer
    assert fewer is not None
    prompts = list(islice((prompt for prompt in asked if prompt.images), ASKED))
    answer = _Answering(bundle, reference, fewer)
    answers = []
    for number, prompt in enumerate(prompts):
        progress("fewer image tokens", number, len(prompts))
        with suppress(ContextOverflow):
            answers.append(answer(prompt))
    progress("fewer image tokens", len(prompts), len(prompts))

    if not answers:
        logger.warning("what fewer image tokens cost is not measured: no question with all of them fits the context")
        return None

    def changed(which: Callable[[Answers], tuple[int, ...]]) -> float:
        return sum(which(one) != one.whole for one in answers) / len(answers)

    figures = TokenFigures(
        kept=fewer.kept,
        of=fewer.of,
        method=fewer.method,
        questions=len(answers),
        changed=changed(lambda one: one.kept),
        random_changed=changed(lambda one: one.random),
    )
    if 0 < figures.random_changed <= figures.changed:
        logger.warning("%s keeps no more answers than as many image tokens drawn at random", fewer.method)
    return figures


def with_cost(certificate: Certificate, figures: TokenFigures | None) -> Certificate:
    """A certificate that says what fewer image tokens cost, where that was measured, and whether it is too much."""
    if figures is None:
        return certificate
    where = (
        f"{figures.kept} of {figures.of} image tokens ({figures.method}), share of {figures.questions} answers that "
        f"are others than with all ({figures.random_changed:.3g} with as many at random)"
    )
    missed = judge(certificate.thresholds, {"changed": figures.changed}, {"changed": where})
    return replace(certificate, image_tokens=figures, missed=(*certificate.missed, *missed))


@dataclass(frozen=True, slots=True)
class Answers:
    """Token ids of one question's greedy answers."""

    whole: tuple[int, ...]
    kept: tuple[int, ...]
    random: tuple[int, ...]


class _Answering:
    """The bundle's decoder, with rows that come from elsewhere: they are in its image cache before it is asked."""

    def __init__(self, bundle: Bundle, reference: AnyReference, fewer: FewerTokens) -> None:
        self._reference, self._fewer, image = reference, fewer, bundle.manifest.image
        context = min(CONTEXT, bundle.manifest.decoder.max_context)
        self._kept = Pipeline.load(bundle, RuntimeOptions(engine="ort", max_context=context, verify="size"))
        whole = replace(image, options={**image.options, TOKENS[image.kind]: fewer.of})
        self._whole = replace(self._kept, processor=make_processor(whole))

    def __call__(self, prompt: ImagePrompt) -> Answers:
        rows = [self._reference.encode_image(image)[1] for image in prompt.images]
        return Answers(
            whole=_ask(self._whole, prompt, rows),
            kept=_ask(self._kept, prompt, ()),
            random=_ask(self._kept, prompt, [self._drawn(one) for one in rows]),
        )

    def _drawn(self, rows: Rows) -> Rows:
        """Of each tile's rows as many as are kept, drawn anew for each image."""
        tiles = rows.reshape(-1, self._fewer.of, rows.shape[-1])
        seed = zlib.crc32(np.ascontiguousarray(rows[:1]).tobytes())
        drawn = [tile[places(self._fewer.of, self._fewer.kept, seed + number)] for number, tile in enumerate(tiles)]
        return np.concatenate(drawn)


def _ask(pipeline: Pipeline, prompt: ImagePrompt, rows: Sequence[Rows]) -> tuple[int, ...]:
    """An answer's tokens; the images' embeddings are `rows`, or where there are none the bundle's own."""
    pipeline.encoder.cache.clear()
    for image, one in zip(prompt.images, rows, strict=bool(rows)):
        pipeline.encoder.cache.put(pipeline.prepare(image).key, one)
    with Session(pipeline, prompt.images, None) as session:
        return session.ask(prompt.question, max_new_tokens=NEW_TOKENS, temperature=0.0).token_ids
