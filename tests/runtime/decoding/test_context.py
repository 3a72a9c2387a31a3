"""Prefill in chunks, reuse of prefixes, rewinding: always the same logits as computing everything anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.text.layout import ImageSpan, Prompt
from tests.support.contexts import (
    HIDDEN,
    IMAGE,
    PICTURES,
    ROWS,
    Part,
    embeddings_of,
    in_tiles,
    new_context,
    prefill,
    prompt_of,
)

PARTS = st.lists(st.one_of(st.integers(0, 3), st.sampled_from("xyz")), min_size=1, max_size=14)


@pytest.fixture(scope="module", params=["linear", "mrope"])
def model(request: pytest.FixtureRequest, handmade_bundle: Path, mrope_bundle: Path) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(handmade_bundle if request.param == "linear" else mrope_bundle, threads=1)


def _expanded(parts: list[Part]) -> list[tuple[Part, int]]:
    """Position by position, what is there: the model of prefix matching that the test believes in."""
    return [(part, row) for part in parts for row in range(ROWS if isinstance(part, str) else 1)]


@given(st.lists(PARTS, min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_reused_prefixes_change_nothing(
    model: edgevlm_runtime.VLM, prompts: list[list[Part]], chunk: int, steps: int
) -> None:
    """Prompts one after another in one cache, with generated tokens between, equal each prompt in a fresh cache."""
    shared = new_context(model, chunk)
    held: list[tuple[Part, int]] = []
    for parts in prompts:
        prompt = prompt_of(parts)
        wanted = _expanded(parts)
        common = next(
            (i for i, (old, new) in enumerate(zip(held, wanted, strict=False)) if old != new),
            min(len(held), len(wanted)),
        )
        assert shared.shared_prefix(prompt) == min(common, len(prompt) - 1)
        fresh = new_context(model)
        np.testing.assert_allclose(prefill(shared, prompt), prefill(fresh, prompt), atol=2e-5)
        assert shared.length == len(prompt)
        for token in range(steps):
            np.testing.assert_allclose(shared.step(token), fresh.step(token), atol=2e-5)
        held = wanted + [(token, 0) for token in range(steps)]


@given(PARTS, st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_all_positions_at_once_equal_one_by_one(
    model: edgevlm_runtime.VLM, parts: list[Part], said: list[int], chunk: int
) -> None:
    """Logits of a whole sequence, in chunks, are those of its beginning followed by single steps."""
    beginning, whole = prompt_of(parts), prompt_of([*parts, *said])
    scores = new_context(model, chunk).score(whole, embeddings_of(whole))
    assert scores.shape == (len(whole), 262)
    np.testing.assert_allclose(scores, new_context(model).score(whole, embeddings_of(whole)), atol=2e-5)
    context = new_context(model)
    np.testing.assert_allclose(prefill(context, beginning), scores[len(beginning) - 1], atol=2e-5)
    for place, token in enumerate(said, start=len(beginning)):
        np.testing.assert_allclose(context.step(token), scores[place], atol=2e-5)


def test_generated_tokens_are_a_prefix_too(model: edgevlm_runtime.VLM) -> None:
    context = new_context(model)
    prefill(context, prompt_of(["x", 1, 2]))
    for token in (3, 2):
        context.step(token)
    assert context.shared_prefix(prompt_of(["x", 1, 2, 3, 2, 1])) == ROWS + 4
    assert context.shared_prefix(prompt_of(["x", 1, 2, 3, 0, 1])) == ROWS + 3
    assert context.shared_prefix(prompt_of(["x", 1, 2, 0, 0, 1])) == ROWS + 2


def test_same_placeholders_other_image_is_no_prefix(model: edgevlm_runtime.VLM) -> None:
    context = new_context(model)
    one, other = prompt_of([1, "x", 2, 3]), prompt_of([1, "y", 2, 3])
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    first = prefill(context, one)
    assert context.shared_prefix(one) == len(one) - 1
    assert context.shared_prefix(other) == 1
    second = prefill(context, other)
    assert np.abs(first - second).max() > 1e-2
    np.testing.assert_allclose(prefill(context, one), first, atol=2e-5)


def test_images_in_another_order(model: edgevlm_runtime.VLM) -> None:
    context = new_context(model)
    prefill(context, prompt_of([1, "x", "y", 2]))
    assert context.shared_prefix(prompt_of([1, "x", "z", 2])) == 1 + ROWS
    assert context.shared_prefix(prompt_of([1, "y", "x", 2])) == 1


def test_images_are_reused_up_to_the_first_tile_that_changed(model: edgevlm_runtime.VLM) -> None:
    """Also where another image begins with the tile of one that is there, and where the prompt cuts an image in two."""
    context = new_context(model)
    one = in_tiles(prompt_of([1, "x", 2, "y", 3]), "ab", "ca")
    prefill(context, one)
    for other, shared in (
        (in_tiles(prompt_of([1, "z", 2, "y", 3]), "ab", "ca"), 2 * (1 + ROWS)),
        (in_tiles(prompt_of([1, "z", 2, "y", 3]), "ad", "ca"), 1 + ROWS // 2),
        (in_tiles(prompt_of([1, "z", 2, "y", 3]), "da", "ca"), 1),
        (in_tiles(prompt_of([1, "x", 2, "z", 3]), "ab", "cb"), 2 * (1 + ROWS) - ROWS // 2),
        (in_tiles(prompt_of([1, "x", 2, "z", 3]), "ab", "ac"), 2 + ROWS),
        (prompt_of([1, "x", 2, "y", 3]), 1),
    ):
        assert context.shared_prefix(other) == shared
        kept = context.held().contents
        assert kept.shared(other, (), states=False) == shared


def test_reusing_tiles_gives_what_computing_gives(model: edgevlm_runtime.VLM) -> None:
    context = new_context(model)
    before = in_tiles(prompt_of([1, "x", 2]), "ab")
    prefill(context, before)
    after = in_tiles(prompt_of([1, "z", 2]), "ac")
    rows = np.concatenate([PICTURES["x"][: ROWS // 2], PICTURES["z"][ROWS // 2 :]])
    reused, anew = (one.prefill(after, lambda _: rows) for one in (context, new_context(model)))
    assert reused is not None
    assert anew is not None
    np.testing.assert_allclose(reused, anew, atol=2e-5)


def test_an_image_that_stands_in_two_runs_is_known_by_its_tiles(handmade_bundle: Path) -> None:
    """Runs begin and end within tiles and between them."""
    model = edgevlm_runtime.load(handmade_bundle, threads=1)
    ids, half = np.array([1, IMAGE, 2, IMAGE, IMAGE, IMAGE, 3], np.int64), ROWS // 2
    spans = (ImageSpan(1, 1, 0, 0), ImageSpan(3, 3, 0, 1))
    one = in_tiles(Prompt(ids, spans, image_keys=("x",)), "ab")
    context = new_context(model)
    prefill(context, one)
    assert context.shared_prefix(in_tiles(replace(one, image_keys=("y",)), "ac")) == 3 + half - 1
    assert context.shared_prefix(in_tiles(replace(one, image_keys=("y",)), "ab")) == len(one) - 1
    assert context.shared_prefix(in_tiles(replace(one, image_keys=("y",)), "ba")) == 1


def test_reused_images_are_not_asked_for(model: edgevlm_runtime.VLM) -> None:
    context = new_context(model)
    prefill(context, prompt_of([1, "x", 2]))
    prompt = prompt_of([1, "x", 3, "y", 4])
    asked: list[int] = []

    def embeddings(number: int) -> np.ndarray:
        asked.append(number)
        return PICTURES[prompt.image_keys[number]]

    context.prefill(prompt, embeddings)
    assert set(asked) == {1}


def test_cancelled_prefill_leaves_a_true_prefix(model: edgevlm_runtime.VLM) -> None:
    prompt = prompt_of([1, "x", 2, 3, "y", 4, 5, 6])
    context = new_context(model, 4)
    answers = iter([False, False, True])
    assert context.prefill(prompt, embeddings_of(prompt), lambda: next(answers)) is None
    assert 0 < context.length < len(prompt)
    assert context.shared_prefix(prompt) == context.length
    np.testing.assert_allclose(prefill(context, prompt), prefill(new_context(model), prompt), atol=2e-5)


def test_failed_prefill_leaves_a_true_prefix(model: edgevlm_runtime.VLM) -> None:
    prompt = prompt_of([1, 2, 3, 4, "x", 5])
    context = new_context(model, 4)
    with pytest.raises(ValueError, match="broadcast"):
        context.prefill(prompt, lambda _: np.zeros((ROWS, HIDDEN + 1), np.float32))
    assert 0 < context.length < 5
    np.testing.assert_allclose(prefill(context, prompt), prefill(new_context(model), prompt), atol=2e-5)


def test_positions_matter_with_mrope(mrope_bundle: Path) -> None:
    """The same tokens with the image as one row of four, or two of two, are different positions."""
    model = edgevlm_runtime.load(mrope_bundle, threads=1)
    square = prompt_of([1, "x", 2])
    span = square.images[0]
    row = Prompt(square.token_ids, (ImageSpan(span.start, ROWS, 0, 0, (1, 4)),), image_keys=square.image_keys)
    assert np.abs(prefill(new_context(model), square) - prefill(new_context(model), row)).max() > 1e-3


def test_full_context(model: edgevlm_runtime.VLM) -> None:
    context = Context(model.pipeline.decoder, model.pipeline.positions, 4, 1024)
    prefill(context, prompt_of([1, 2, 3]))
    context.step(0)
    with pytest.raises(EdgeVLMError, match="4 tokens cannot take 1 after 4"):
        context.step(0)
    assert context.shared_prefix(prompt_of([1, 2, 3, 0, 9][:4])) == 3


def test_a_graph_that_bounds_the_rows_with_logits(model: edgevlm_runtime.VLM) -> None:
    """Engines are built for so many rows: more are taken in several runs, with the same logits and cache."""
    prompt, tokens = prompt_of([0, "x", 1, 2, 3, 1]), np.array([1, 2, 0, 3, 1])
    free, bounded = new_context(model), Context(model.pipeline.decoder, model.pipeline.positions, 96, 1024, rows=2)
    most = 0
    forward = bounded._run.forward

    def counted(embeddings: np.ndarray, rows: np.ndarray, *more: Any) -> np.ndarray:
        nonlocal most
        most = max(most, rows.size)
        return forward(embeddings, rows, *more)

    bounded._run.forward = counted  # type: ignore[method-assign]
    np.testing.assert_allclose(
        bounded.score(prompt, embeddings_of(prompt)), free.score(prompt, embeddings_of(prompt)), atol=1e-5
    )
    np.testing.assert_allclose(bounded.peek(tokens), free.peek(tokens), atol=1e-5)
    assert most == 2
    assert bounded.length == free.length == len(prompt)
