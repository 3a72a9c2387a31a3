"""Sampling equals transformers' logits processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgevlm_runtime.decoding import sampling
from edgevlm_runtime.decoding.sampling import Sampler, candidates, log_probability
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import GenerationOptions

torch = pytest.importorskip("torch")
processors = pytest.importorskip("transformers.generation.logits_process")

VOCAB = 40
LOGITS = hnp.arrays(np.float32, VOCAB, elements=st.floats(-8, 8, width=16), unique=True)
NO_IDS = np.array([], dtype=np.int64)


def _reference(logits: np.ndarray, ids: np.ndarray, options: GenerationOptions) -> np.ndarray:
    """What transformers' `generate` samples from, in the order of `_get_logits_processor`."""
    chain: list[Any] = []
    if options.repetition_penalty != 1.0:
        chain.append(processors.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.suppress_tokens:
        chain.append(processors.SuppressTokensLogitsProcessor(list(options.suppress_tokens)))
    if options.temperature not in (0.0, 1.0):
        chain.append(processors.TemperatureLogitsWarper(options.temperature))
    if options.temperature and options.top_k:
        chain.append(processors.TopKLogitsWarper(options.top_k))
    if options.temperature and options.top_p < 1.0:
        chain.append(processors.TopPLogitsWarper(options.top_p))
    scores = torch.from_numpy(logits.copy())[None]
    for processor in chain:
        scores = processor(torch.from_numpy(ids)[None], scores)
    return np.asarray(scores[0].numpy())


@given(
    LOGITS,
    st.lists(st.integers(0, VOCAB - 1), min_size=1),
    st.floats(0.5, 2.0),
    st.sets(st.integers(0, VOCAB - 1), max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_greedy_with_penalty_and_suppression(
    logits: np.ndarray, prompt: list[int], penalty: float, suppressed: set[int]
) -> None:
    options = GenerationOptions(repetition_penalty=penalty, suppress_tokens=tuple(suppressed))
    ids = np.array(prompt, dtype=np.int64)
    before = logits.copy()
    sampler = Sampler(options, ids, VOCAB)
    for _ in range(6):  # the penalty also counts what was generated
        wanted = _reference(logits, ids, options)
        token = sampler.pick(logits).token_id
        assert wanted[token] == wanted.max()
        np.testing.assert_array_equal(logits, before)
        ids = np.append(ids, token)


@given(LOGITS, st.lists(st.integers(0, VOCAB - 1), min_size=1), st.floats(0.5, 2.0))
@settings(max_examples=30, deadline=None)
def test_scores_are_those_of_transformers(logits: np.ndarray, prompt: list[int], penalty: float) -> None:
    """Every token's score, negative ones too, which rarely win."""
    options = GenerationOptions(repetition_penalty=penalty, suppress_tokens=(3,))
    ids = np.array(prompt, dtype=np.int64)
    scores = Sampler(options, ids, VOCAB)._process(logits)
    np.testing.assert_allclose(scores, _reference(logits, ids, options), rtol=1e-6)


def test_the_likeliest_token_always_stays() -> None:
    tokens, _ = candidates(np.array([1, 3, 2], dtype=np.float32), GenerationOptions(temperature=1.0, top_p=1e-20))
    assert tokens.tolist() == [1]


@given(LOGITS, st.floats(0.2, 3.0), st.integers(0, VOCAB + 5), st.floats(0.05, 1.0))
@settings(max_examples=80, deadline=None)
def test_candidates_are_those_of_transformers(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> None:
    options = GenerationOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    wanted = _reference(logits, np.array([0]), options)
    assume(not _on_the_edge(logits / np.float32(temperature), top_k, top_p))
    tokens, scores = candidates(logits, options)
    np.testing.assert_array_equal(tokens, np.flatnonzero(np.isfinite(wanted)))
    np.testing.assert_allclose(scores, wanted[tokens] - wanted[tokens].max(), rtol=1e-5, atol=1e-4)


def _on_the_edge(scores: np.ndarray, top_k: int, top_p: float) -> bool:
    """Whether a cumulative probability is so near 1 - top_p that rounding decides."""
    kept = np.sort(scores)[-top_k:] if 0 < top_k < scores.size else np.sort(scores)
    probabilities = np.exp(kept.astype(np.float64) - kept.max())
    return bool(np.any(np.abs(np.cumsum(probabilities / probabilities.sum()) - (1 - top_p)) < 1e-5))


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_nucleus_of_a_large_vocabulary(sharpness: float, top_p: float) -> None:
    """Both ways: when the likeliest 1,024 tokens are enough, and when they are not."""
    logits = (np.random.default_rng(7).standard_normal(20_000) * sharpness).astype(np.float32)
    options = GenerationOptions(temperature=1.0, top_p=top_p)
    wanted = np.flatnonzero(np.isfinite(_reference(logits, np.array([0]), options)))
    tokens, _ = candidates(logits, options)
    # float32 accumulation over 20,000 terms there, float64 here: the edge may move by a few tokens
    assert abs(len(tokens) - len(wanted)) <= max(2, len(wanted) // 500)
    assert len(np.setdiff1d(tokens, wanted)) + len(np.setdiff1d(wanted, tokens)) <= max(2, len(wanted) // 500)


def test_nucleus_shortcut_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = (np.random.default_rng(8).standard_normal(5_000) * 3).astype(np.float32)
    options = GenerationOptions(temperature=1.0, top_p=0.8)
    quick, _ = candidates(logits, options)
    monkeypatch.setattr(sampling, "_NUCLEUS", 10_000)
    whole, _ = candidates(logits, options)
    np.testing.assert_array_equal(quick, whole)
    assert 1 < len(quick) < 1_024


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))
    sampler = Sampler(GenerationOptions(temperature=1.0, seed=3), NO_IDS, 4)
    counts = np.bincount([sampler.pick(logits).token_id for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0.1, 0.2, 0.3, 0.4], atol=0.015)


def test_seed_makes_draws_reproducible() -> None:
    logits = np.zeros(1_000, dtype=np.float32)

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(GenerationOptions(temperature=1.0, seed=seed), NO_IDS, 1_000)
        return [sampler.pick(logits).token_id for _ in range(20)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_suppressed_tokens_are_never_drawn() -> None:
    logits = np.array([9, 8, 1, 1], dtype=np.float32)
    options = GenerationOptions(temperature=1.0, suppress_tokens=(0, 1, 99), seed=0)
    sampler = Sampler(options, NO_IDS, 4)
    assert {sampler.pick(logits).token_id for _ in range(200)} == {2, 3}


@given(LOGITS, st.integers(0, VOCAB - 1))
@settings(max_examples=25, deadline=None)
def test_log_probability_is_log_softmax(logits: np.ndarray, token: int) -> None:
    wanted = torch.log_softmax(torch.from_numpy(logits), -1)[token].item()
    assert log_probability(logits, token) == pytest.approx(wanted, abs=1e-5)


def test_log_probabilities_are_the_models_own() -> None:
    logits = np.array([1, 2, 3], dtype=np.float32)
    options = GenerationOptions(temperature=0.1, repetition_penalty=3.0, suppress_tokens=(2,), seed=1)
    pick = Sampler(options, np.array([1]), 3).pick(logits)
    assert pick.logprob == pytest.approx(log_probability(logits, pick.token_id))
    assert Sampler(GenerationOptions(logprobs=False), NO_IDS, 3).pick(logits).logprob is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    """An overflowing float16 decoder must not answer with token 0."""
    logits = np.array([1, bad, 3], dtype=np.float32)
    with pytest.raises(EdgeVLMError, match="not numbers"):
        Sampler(GenerationOptions(), NO_IDS, 3).pick(logits)


def test_image_tokens_beyond_the_vocabulary_do_not_matter() -> None:
    sampler = Sampler(GenerationOptions(repetition_penalty=2.0), np.array([1, 5_000, -3]), 3)
    assert sampler.pick(np.array([1, 1.9, 1], dtype=np.float32)).token_id == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-320, 1e-46, 1e-38, 1e-10])
def test_a_temperature_next_to_nothing_takes_the_likeliest(temperature: float) -> None:
    for logits in ([300.0, 3.0, 299.0], [-300.0, -301.0, -1000.0], [np.finfo(np.float32).max, 0.0, 1.0]):
        for more in ({}, {"top_k": 2}, {"top_p": 0.5}):
            sampler = Sampler(GenerationOptions(temperature=temperature, seed=1, **more), NO_IDS, 3)
            assert sampler.pick(np.array(logits, dtype=np.float32)).token_id == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_suppressed_tokens_never_come(temperature: float) -> None:
    """Nor the crash: where every token is suppressed there is one line."""
    logits = np.array([5, 3, 1], dtype=np.float32)
    options = GenerationOptions(temperature=temperature, suppress_tokens=(0, 2), seed=1)
    assert {Sampler(options, NO_IDS, 3).pick(logits).token_id for _ in range(20)} == {1}
    every = GenerationOptions(temperature=temperature, suppress_tokens=range(3), seed=1)
    with pytest.raises(EdgeVLMError, match="suppress_tokens leaves no token"):
        Sampler(every, NO_IDS, 3).pick(logits)
    masked = np.array([5, -np.inf, -np.inf], dtype=np.float32)
    with pytest.raises(EdgeVLMError, match="suppress_tokens leaves no token"):
        Sampler(options, NO_IDS, 3).pick(masked)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("penalty", [0.01, 100.0])
def test_the_bounds_of_the_repetition_penalty(penalty: float) -> None:
    logits = np.array([900, 800, -900], dtype=np.float32)
    for temperature in (0.0, 1.0):
        options = GenerationOptions(repetition_penalty=penalty, temperature=temperature, seed=1)
        assert Sampler(options, np.array([0, 2]), 3).pick(logits).token_id == (1 if penalty > 1 else 0)


@given(LOGITS, st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_the_likeliest_tokens_are_torchs(logits: np.ndarray, count: int) -> None:
    picked = Sampler(GenerationOptions(top_logprobs=count), NO_IDS, VOCAB).pick(logits)
    wanted = torch.topk(torch.from_numpy(logits), min(count, VOCAB))
    known = torch.log_softmax(torch.from_numpy(logits), -1)
    tokens = [token for token, _ in picked.top]
    assert len(set(tokens)) == len(tokens)
    assert logits[tokens].tolist() == logits[wanted.indices.numpy()].tolist()
    assert [value for _, value in picked.top] == pytest.approx(known[wanted.indices].tolist(), abs=1e-5)
    assert picked.top[0] == (picked.token_id, pytest.approx(picked.logprob))


def test_equally_likely_tokens_come_in_order() -> None:
    picked = Sampler(GenerationOptions(top_logprobs=3), NO_IDS, VOCAB).pick(np.zeros(VOCAB, np.float32))
    assert [token for token, _ in picked.top] == [0, 1, 2]


def test_no_likeliest_tokens_without_log_probabilities() -> None:
    with pytest.raises(EdgeVLMError, match="top_logprobs"):
        GenerationOptions(top_logprobs=3, logprobs=False)
