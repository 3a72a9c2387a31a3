"""The shipped model, exported: float32 answers like transformers token for token; int8 keeps its verdicts."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_export import inspection
from edgevlm_export.inspector import checkpoint_path
from edgevlm_export.reference import Reference

QUESTIONS = 300
FIRST_IMAGE = 3000


@pytest.fixture(scope="module")
def examples():
    return list(inspection.examples("test", QUESTIONS, questions_per_image=4, start=FIRST_IMAGE))


@pytest.fixture(scope="module")
def expected(examples):
    reference = Reference.load("inspector")
    return [reference.answer(example.question, [example.image]).token_ids for example in examples]


def answers(vlm: edgevlm_runtime.VLM, examples: list[inspection.Example]) -> list[edgevlm_runtime.Answer]:
    found = []
    for _, group in groupby(examples, key=lambda example: example.part.seed):
        same_image = list(group)
        with vlm.session(same_image[0].image) as session:
            found += [session.ask(example.question) for example in same_image]
    return found


def test_float32_gives_the_tokens_of_transformers(examples, expected, export_bundle):
    found = answers(edgevlm_runtime.load(export_bundle(checkpoint_path())), examples)
    assert [answer.token_ids for answer in found] == expected


def test_int8_keeps_the_verdicts(examples, expected, export_bundle):
    vlm = edgevlm_runtime.load(export_bundle(checkpoint_path(), precision="int8"))
    found = answers(vlm, examples)
    flips = sum(answer.token_ids != tokens for answer, tokens in zip(found, expected, strict=True))
    right = sum(str(answer) == example.answer for answer, example in zip(found, examples, strict=True))
    assert flips <= 0.02 * QUESTIONS
    assert right >= 0.93 * QUESTIONS


def test_int8_still_tells_images_apart(examples, export_bundle):
    vlm = edgevlm_runtime.load(export_bundle(checkpoint_path(), precision="int8"))
    images = {example.part.seed: example.image for example in examples[:32]}
    embeddings = [vlm.encoder.encode(vlm.prepare(image)).embeddings for image in images.values()]
    for index, one in enumerate(embeddings):
        for other in embeddings[:index]:
            assert np.abs(one - other).mean() > 0.05 * np.abs(one).mean()
    assert len({str(vlm.ask(image, "Give a full report of the part.")) for image in images.values()}) == len(images)
