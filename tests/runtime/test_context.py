"""Prefill in chunks, reuse of prefixes, rewinding: always the same logits as computing everything anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.context import Context, PromptSequence
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.positions.base import ImageSpan, SequenceLayout

HIDDEN, ROWS, IMAGE = 32, 4, 258
PICTURES = {
    name: np.random.default_rng(i).standard_normal((ROWS, HIDDEN)).astype(np.float32) for i, name in enumerate("xyz")
}
Part = int | str
PARTS = st.lists(st.one_of(st.integers(0, 3), st.sampled_from("xyz")), min_size=1, max_size=14)


def _prompt(parts: list[Part]) -> PromptSequence:
    """Numbers are text tokens, letters are images of four tokens."""
    ids: list[int] = []
    spans, keys = [], []
    for part in parts:
        if isinstance(part, str):
            spans.append(ImageSpan(len(ids), ROWS, len(keys), 0, (2, 2)))
            keys.append(part)
            ids += [IMAGE] * ROWS
        else:
            ids.append(part)
    return PromptSequence(np.array(ids, dtype=np.int64), SequenceLayout(tuple(spans)), tuple(keys))


def _embeddings(prompt: PromptSequence) -> Callable[[int], np.ndarray]:
    return lambda number: PICTURES[prompt.image_keys[number]]


def _prefill(context: Context, prompt: PromptSequence) -> np.ndarray:
    logits = context.prefill(prompt, _embeddings(prompt))
    assert logits is not None
    return logits.copy()


@pytest.fixture(scope="module", params=["linear", "mrope"])
def model(request: pytest.FixtureRequest, handmade_bundle: Path, mrope_bundle: Path) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(handmade_bundle if request.param == "linear" else mrope_bundle, threads=1)


def _context(model: edgevlm_runtime.VLM, chunk: int = 1024) -> Context:
    return Context(model.decoder, model._positions, 96, chunk)


def _expanded(parts: list[Part]) -> list[tuple[Part, int]]:
    """Position by position, what is there: the model of prefix matching that the test believes in."""
    return [(part, row) for part in parts for row in range(ROWS if isinstance(part, str) else 1)]


@given(st.lists(PARTS, min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_reused_prefixes_change_nothing(
    model: edgevlm_runtime.VLM, prompts: list[list[Part]], chunk: int, steps: int
) -> None:
    """Prompts one after another in one cache, with generated tokens between, equal each prompt in a fresh cache."""
    shared = _context(model, chunk)
    held: list[tuple[Part, int]] = []
    for parts in prompts:
        prompt = _prompt(parts)
        wanted = _expanded(parts)
        common = next(
            (i for i, (old, new) in enumerate(zip(held, wanted, strict=False)) if old != new),
            min(len(held), len(wanted)),
        )
        assert shared.shared_prefix(prompt) == min(common, len(prompt) - 1)
        fresh = _context(model)
        np.testing.assert_allclose(_prefill(shared, prompt), _prefill(fresh, prompt), atol=2e-5)
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
    beginning, whole = _prompt(parts), _prompt([*parts, *said])
    scores = _context(model, chunk).score(whole, _embeddings(whole))
    assert scores.shape == (len(whole), 262)
    np.testing.assert_allclose(scores, _context(model).score(whole, _embeddings(whole)), atol=2e-5)
    context = _context(model)
    np.testing.assert_allclose(_prefill(context, beginning), scores[len(beginning) - 1], atol=2e-5)
    for place, token in enumerate(said, start=len(beginning)):
        np.testing.assert_allclose(context.step(token), scores[place], atol=2e-5)


def test_generated_tokens_are_a_prefix_too(model: edgevlm_runtime.VLM) -> None:
    context = _context(model)
    _prefill(context, _prompt(["x", 1, 2]))
    for token in (3, 2):
        context.step(token)
    assert context.shared_prefix(_prompt(["x", 1, 2, 3, 2, 1])) == ROWS + 4
    assert context.shared_prefix(_prompt(["x", 1, 2, 3, 0, 1])) == ROWS + 3
    assert context.shared_prefix(_prompt(["x", 1, 2, 0, 0, 1])) == ROWS + 2


def test_same_placeholders_other_image_is_no_prefix(model: edgevlm_runtime.VLM) -> None:
    context = _context(model)
    one, other = _prompt([1, "x", 2, 3]), _prompt([1, "y", 2, 3])
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    first = _prefill(context, one)
    assert context.shared_prefix(one) == len(one) - 1
    assert context.shared_prefix(other) == 1
    second = _prefill(context, other)
    assert np.abs(first - second).max() > 1e-2
    np.testing.assert_allclose(_prefill(context, one), first, atol=2e-5)


def test_images_in_another_order(model: edgevlm_runtime.VLM) -> None:
    context = _context(model)
    _prefill(context, _prompt([1, "x", "y", 2]))
    assert context.shared_prefix(_prompt([1, "x", "z", 2])) == 1 + ROWS
    assert context.shared_prefix(_prompt([1, "y", "x", 2])) == 1


def test_reused_images_are_not_asked_for(model: edgevlm_runtime.VLM) -> None:
    context = _context(model)
    _prefill(context, _prompt([1, "x", 2]))
    prompt = _prompt([1, "x", 3, "y", 4])
    asked: list[int] = []

    def embeddings(number: int) -> np.ndarray:
        asked.append(number)
        return PICTURES[prompt.image_keys[number]]

    context.prefill(prompt, embeddings)
    assert set(asked) == {1}


def test_cancelled_prefill_leaves_a_true_prefix(model: edgevlm_runtime.VLM) -> None:
    prompt = _prompt([1, "x", 2, 3, "y", 4, 5, 6])
    context = _context(model, 4)
    answers = iter([False, False, True])
    assert context.prefill(prompt, _embeddings(prompt), lambda: next(answers)) is None
    assert context.length == 8
    assert context.shared_prefix(prompt) == 8
    np.testing.assert_allclose(_prefill(context, prompt), _prefill(_context(model), prompt), atol=2e-5)


def test_failed_prefill_leaves_a_true_prefix(model: edgevlm_runtime.VLM) -> None:
    prompt = _prompt([1, 2, 3, 4, "x", 5])
    context = _context(model, 4)
    with pytest.raises(ValueError, match="broadcast"):
        context.prefill(prompt, lambda _: np.zeros((ROWS, HIDDEN + 1), np.float32))
    assert context.length == 4
    np.testing.assert_allclose(_prefill(context, prompt), _prefill(_context(model), prompt), atol=2e-5)


def test_positions_matter_with_mrope(mrope_bundle: Path) -> None:
    """The same tokens with the image as one row of four, or two of two, are different positions."""
    model = edgevlm_runtime.load(mrope_bundle, threads=1)
    square = _prompt([1, "x", 2])
    span = square.layout.images[0]
    row = PromptSequence(
        square.token_ids, SequenceLayout((ImageSpan(span.start, ROWS, 0, 0, (1, 4)),)), square.image_keys
    )
    assert np.abs(_prefill(_context(model), square) - _prefill(_context(model), row)).max() > 1e-3


def test_full_context(model: edgevlm_runtime.VLM) -> None:
    context = Context(model.decoder, model._positions, 4, 1024)
    _prefill(context, _prompt([1, 2, 3]))
    context.step(0)
    with pytest.raises(EdgeVLMError, match="4 tokens cannot take 1 after 4"):
        context.step(0)
    assert context.shared_prefix(_prompt([1, 2, 3, 0, 9][:4])) == 3
