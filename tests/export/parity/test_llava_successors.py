"""ViP-LLaVA, LLaVA-NeXT, LLaVA-OneVision: images anywhere in a prompt however it is cut, token for token what
transformers' generate gives; what is reused is what a fresh run computes; other readers of the model and int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_export.reference import Forced, StreamedReference
from edgevlm_runtime.bundle.certificate import read_certificate
from tests.export.parity.test_blocks import LONG, SINGLE, TOKENS, TURNS, Case, count, greedy, prompt_and_images, user
from tests.export.parity.test_layouts import FIRST
from tests.export.parity.test_parity import CASES, QUESTIONS, pictures
from tests.support.references import Remembered

FAMILIES = ("vipllava", "llava_next", "llava_onevision")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow)
        for name in CASES
        if name.startswith(FAMILIES)
    ],
)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("successors") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


@pytest.fixture(scope="module", params=[4, 37, 1024])
def vlm(request: pytest.FixtureRequest, case: Case) -> edgevlm_runtime.VLM:
    """In chunks that hold no image whole, that end within one, and in one run."""
    return edgevlm_runtime.load(case.bundle, prefill_chunk=request.param, verify="size")


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
@pytest.mark.parametrize("layout", [*SINGLE, *TURNS])
def test_images_anywhere_in_chunks_of_any_size(case: Case, vlm: edgevlm_runtime.VLM, layout: str) -> None:
    messages = {**SINGLE, **TURNS}[layout]
    images = pictures()[: count(messages)]
    expected = case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
    ids, logits = case.reference.prompt_logits(messages, images)
    prompt, embeddings = prompt_and_images(vlm, messages, images)
    assert greedy(vlm.pipeline.new_context(), prompt, embeddings, vlm.manifest.generation.eos_token_ids) == expected
    found_ids, found = vlm.prompt_logits(messages, images)
    np.testing.assert_array_equal(found_ids, ids)
    assert np.abs(found - logits).max() < 1e-3


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
def test_what_is_reused_is_what_a_fresh_run_computes(case: Case, vlm: edgevlm_runtime.VLM) -> None:
    """One KV cache through prompts that share beginnings, some of which end within an image."""
    context, ends = vlm.pipeline.new_context(), vlm.manifest.generation.eos_token_ids
    one, two = pictures()[2:]
    reused = []
    for messages, images in (
        ([user(None, QUESTIONS[0])], [one]),
        ([user(None, QUESTIONS[1])], [one]),
        ([user(None, "and", None, QUESTIONS[1])], [one, two]),
        ([user(None, "and", None, QUESTIONS[1])], [one, one]),
        ([user(None, QUESTIONS[1])], [two]),
        ([user(LONG, None, QUESTIONS[0])], [one]),
        ([user(LONG)], []),
    ):
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        reused.append(context.shared_prefix(prompt))
        found = greedy(context, prompt, embeddings, ends)
        assert found == greedy(vlm.pipeline.new_context(), prompt, embeddings, ends)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
    prompt, _ = prompt_and_images(vlm, [user(None, QUESTIONS[0])], [one])
    (span,) = prompt.images
    assert all(known >= span.stop for known in reused[1:4])
    assert reused[4] == span.start  # another image


def test_references_agree(case: Case) -> None:
    """The model layer by layer, what it makes of an image included, and the whole of it."""
    streamed = StreamedReference.load(str(case.folder))
    for image in pictures():
        for found, wanted in zip(streamed.encode_image(image), case.reference.encode_image(image), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    said = case.reference.answer(QUESTIONS[0], [pictures()[2]], max_new_tokens=6).token_ids
    answer = tuple(token for token in said if token != case.reference.model.config.image_token_id)
    prompts = [Forced(QUESTIONS[0], (pictures()[2],), answer), Forced(QUESTIONS[1], (), answer)]
    for whole, part in zip(case.reference.read(prompts, 6), streamed.read(prompts, 6), strict=True):
        np.testing.assert_array_equal(whole.token_ids, part.token_ids)
        np.testing.assert_allclose(part.logits, whole.logits, atol=1e-4)
        assert whole.own[: len(part.own)] == part.own


def test_int8_holds_its_certificate(case: Case, export_bundle: Callable[..., Path]) -> None:
    vlm = edgevlm_runtime.load(export_bundle(case.folder, precision="int8", certificate=True), verify="size")
    certificate = read_certificate(vlm.bundle)
    assert certificate is not None
    assert (certificate.verdict, certificate.missed) == ("passed", ())
    assert certificate.decoder is not None
    assert 0 < certificate.decoder.kl_mean < 0.02
    assert vlm.manifest.graphs["decoder"].transforms == ("rotate-residual", "rotate-values", "rotate-product")
