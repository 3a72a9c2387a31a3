"""Images wherever they stand in a prompt, of any shape, none to three of them, and prompts cut into chunks of any size:
every family answers token for token like transformers' generate, and what is reused is what a fresh run computes.

One configuration of each family in `make test-wide`, all of them in `make test-full`.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from tests.export.parity.test_blocks import (
    LONG,
    SINGLE,
    TOKENS,
    TURNS,
    Case,
    count,
    greedy,
    prompt_and_images,
    user,
)
from tests.export.parity.test_parity import CASES, MORE, QUESTIONS, pictures
from tests.support.references import Remembered

ODD = ((2, 3), (30, 180), (180, 30), (301, 217), (9, 8))
"""Heights and widths: tiny, long, larger than any grid of tiles of these models."""
FIRST = {name.split("-")[0]: name for name in reversed(CASES) if name not in MORE}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow) for name in CASES],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("layouts") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


@pytest.mark.parametrize("layout", [*SINGLE, *TURNS])
def test_images_anywhere_in_chunks_of_any_size(case: Case, layout: str) -> None:
    messages = {**SINGLE, **TURNS}[layout]
    if layout in TURNS and not case.turns:
        pytest.skip("no turns in this family")
    images = pictures()[: count(messages)]
    expected = case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
    ids, logits = case.reference.prompt_logits(messages, images)
    for chunk in (1, 4, 37, 1024) if layout == "middle" else (5,):
        vlm = edgevlm_runtime.load(case.bundle, prefill_chunk=chunk, verify="size")
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        context = vlm.pipeline.new_context()
        assert greedy(context, prompt, embeddings, vlm.manifest.generation.eos_token_ids) == expected, chunk
        found_ids, found = vlm.prompt_logits(messages, images)
        np.testing.assert_array_equal(found_ids, ids)
        assert np.abs(found - logits).max() < 1e-3, chunk


def test_odd_pictures(case: Case) -> None:
    vlm, random = edgevlm_runtime.load(case.bundle, verify="size"), np.random.default_rng(7)
    least = 16 if case.folder.name.startswith("mistral3") else 1  # transformers fails there on what gives no two tokens
    for size in (size for size in ODD if min(size) >= least):
        image = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        expected = case.reference.answer(QUESTIONS[0], [image], max_new_tokens=TOKENS)
        assert vlm.ask(image, QUESTIONS[0], max_new_tokens=TOKENS).token_ids == expected.token_ids, size


ASKED = [
    ([user(None, QUESTIONS[0])], (0,)),
    ([user(None, QUESTIONS[1])], (0,)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 1)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 0)),
    ([user(None, QUESTIONS[1])], (1,)),
    ([user(LONG, None)], (0,)),
    ([user(LONG, None, QUESTIONS[0])], (0,)),
    ([user(LONG)], ()),
]


def test_what_is_reused_is_what_a_fresh_run_computes(case: Case) -> None:
    """One KV cache through prompts that share beginnings, some of which end within an image or a block."""
    vlm = edgevlm_runtime.load(case.bundle, prefill_chunk=5, verify="size")
    context, ends, reused = vlm.pipeline.new_context(), vlm.manifest.generation.eos_token_ids, 0
    for messages, places in ASKED:
        images = [pictures()[place] for place in places]
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        reused += context.shared_prefix(prompt)
        found = greedy(context, prompt, embeddings, ends)
        assert found == greedy(vlm.pipeline.new_context(), prompt, embeddings, ends)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
    assert (reused > 100) == case.turns
    assert case.turns or (reused == 0 and vlm.manifest.decoder.prefix is None)
