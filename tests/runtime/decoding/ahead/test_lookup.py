"""Prompt lookup: the tokens are those of single steps, whatever is guessed, measured and taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime import Answer
from edgevlm_runtime.decoding.ahead import gains as measured
from edgevlm_runtime.decoding.ahead.gains import LENGTHS, MOST, PROBES, Gains
from edgevlm_runtime.decoding.ahead.lookup import Said
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.sampling import Sampler
from edgevlm_runtime.options import GenerationOptions

QUESTIONS = ("one two three one two three one two", "what is it", "again and again and again", "aaaaaaaa", "no")
Fresh = Callable[..., edgevlm_runtime.VLM]
Picture = Callable[[int], Any]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses are run whether they pay or not: a machine's mood decides nothing here."""
    monkeypatch.setattr(measured, "WORTH", 0.0)


def told(answer: Answer) -> tuple[Any, ...]:
    return answer.token_ids, answer.text, answer.finish_reason


def both(fresh: Fresh, **options: Any) -> tuple[edgevlm_runtime.VLM, edgevlm_runtime.VLM]:
    return fresh(**options), fresh(prompt_lookup=True, **options)


def runs(vlm: edgevlm_runtime.VLM) -> Mapping[int, float]:
    assert vlm.pipeline.lookups is not None
    return vlm.pipeline.lookups.gains.figures()["run_costs_steps"]


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.3},
    "suppressed": {"suppress_tokens": (101, 32)},
    "sampling": {"temperature": 0.7, "seed": 11},
    "nucleus": {"temperature": 1.0, "top_p": 0.8, "seed": 3},
    "few": {"temperature": 1.3, "top_k": 5, "seed": 4, "repetition_penalty": 1.1},
    "stop": {"stop": ("e", "\u00e9", "a")},
    "short": {"max_new_tokens": 3},
}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_tokens(fresh: Fresh, picture: Picture, name: str) -> None:
    plain, looking = both(fresh)
    for number in range(3):
        with plain.session(picture(number)) as one, looking.session(picture(number)) as other:
            for question in QUESTIONS:
                options = {"max_new_tokens": 60, **OPTIONS[name]}
                expected, answer = one.ask(question, **options), other.ask(question, **options)
                assert told(answer) == told(expected)
                np.testing.assert_allclose(answer.logprobs, expected.logprobs, atol=1e-3)
    if options["max_new_tokens"] > MOST:
        assert runs(looking)


@pytest.mark.usefixtures("always")
def test_what_rounding_could_change_is_computed_again(
    fresh: Fresh, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that are off by much more than any kernel: every token that this changes is taken back."""
    plain, looking = both(fresh)
    extend, again = Context.extend, 0
    noise = np.random.default_rng(1)

    def off(self: Context, token_ids: Any) -> Any:
        rows = extend(self, token_ids)
        return rows + noise.uniform(-0.5, 0.5, rows.shape).astype(np.float32)

    monkeypatch.setattr(Context, "extend", off)
    repeated = Gains.repeated

    def count(self: Gains, seconds: float) -> None:
        nonlocal again
        again += 1
        repeated(self, seconds)

    monkeypatch.setattr(Gains, "repeated", count)
    for number in range(3):
        for question in QUESTIONS:
            expected = plain.ask(picture(number), question, max_new_tokens=80)
            assert told(looking.ask(picture(number), question, max_new_tokens=80)) == told(expected)
    assert again
    assert looking.pipeline.lookups is not None
    assert looking.pipeline.lookups.gains.rounding >= 0.5  # type: ignore[operator]


@pytest.mark.usefixtures("always")
def test_positions_of_three(mrope_bundle: Any) -> None:
    plain = edgevlm_runtime.load(mrope_bundle, threads=1)
    looking = edgevlm_runtime.load(mrope_bundle, threads=1, prompt_lookup=True)
    for question in QUESTIONS:
        expected = plain.ask(None, question, max_new_tokens=60)
        assert told(looking.ask(None, question, max_new_tokens=60)) == told(expected)
    assert runs(looking)


@pytest.mark.usefixtures("always")
def test_streaming_gives_the_same_pieces(fresh: Fresh, picture: Picture) -> None:
    plain, looking = both(fresh)
    with plain.session(picture(1)) as one, looking.session(picture(1)) as other:
        for question in QUESTIONS * 2:
            pieces = list(one.stream(question, max_new_tokens=60))
            assert list(other.stream(question, max_new_tokens=60)) == pieces


@pytest.mark.usefixtures("always")
def test_a_stream_that_is_left_in_the_middle_leaves_a_true_cache(fresh: Fresh, picture: Picture) -> None:
    plain, looking = both(fresh)
    with plain.session(picture(1)) as one, looking.session(picture(1)) as other:
        for number in range(12):
            question = QUESTIONS[number % len(QUESTIONS)]
            stream = other.stream(question, max_new_tokens=60)
            for _, _piece in zip(range(number), stream, strict=False):
                pass
            expected = one.ask(question, max_new_tokens=40)
            assert told(other.ask(question, max_new_tokens=40)) == told(expected)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("context", [40, 48, 64, 96])
def test_the_context_is_full(fresh: Fresh, context: int) -> None:
    plain, looking = both(fresh, max_context=context)
    for question in QUESTIONS[:3]:
        expected = plain.ask(None, question[:12], max_new_tokens=200)
        answer = looking.ask(None, question[:12], max_new_tokens=200)
        assert told(answer) == told(expected)
        assert answer.prompt_tokens + len(answer.token_ids) <= context + 1


@pytest.mark.usefixtures("always")
def test_a_chat_goes_on(fresh: Fresh, picture: Picture) -> None:
    plain, looking = both(fresh)
    with plain.chat(picture(1)) as one, looking.chat(picture(1)) as other:
        for question in ("ab ab ab", "and", "ab"):
            expected = one.ask(question, max_new_tokens=30)
            assert told(other.ask(question, max_new_tokens=30)) == told(expected)


@pytest.mark.usefixtures("always")
def test_a_form_is_kept(fresh: Fresh) -> None:
    pytest.importorskip("llguidance")
    fields = {"type": "object", "properties": {"holes": {"type": "integer"}, "kind": {"enum": ["screw", "nut"]}}}
    form = {**fields, "required": ["holes", "kind"], "additionalProperties": False}
    plain, looking = both(fresh)
    for options in ({}, {"temperature": 1.0, "seed": 2}):
        with plain.session() as one, looking.session() as other:
            for _ in range(4):
                expected = one.ask("report", form=form, max_new_tokens=80, **options)
                assert told(other.ask("report", form=form, max_new_tokens=80, **options)) == told(expected)


@pytest.mark.usefixtures("always")
def test_threads_share_what_is_measured(fresh: Fresh, picture: Picture) -> None:
    plain, looking = both(fresh)
    wrong: list[str] = []
    expected = {question: told(plain.ask(picture(1), question, max_new_tokens=40)) for question in QUESTIONS}

    def work() -> None:
        with looking.session(picture(1)) as session:
            for question in QUESTIONS:
                same = told(session.ask(question, max_new_tokens=40)) == expected[question]
                wrong.extend([] if same else [question])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 20))
def test_guesses_follow_what_followed_before(tokens: list[int], most: int) -> None:
    said = Said()
    for token in tokens:
        said.add(token)
    guessed = said.guess(most)
    for size in (3, 2):
        tail = tokens[len(tokens) - size :]
        places = [n for n in range(len(tokens) - size) if tokens[n : n + size] == tail]
        if len(tokens) >= size and places:
            assert len(guessed) == most
            whole = [*tokens, *guessed]
            begin = places[-1] + size
            assert guessed == whole[begin : begin + most]
            return
    assert not guessed


def test_a_guess_ends_at_an_image() -> None:
    said = Said()
    for token in (1, 2, 3, 4, -1, 5, 1, 2, 3):
        said.add(token)
    assert said.guess(9) == [4]


def learnt(step: float, run: float, right: int) -> Gains:
    gains = Gains()
    for _ in range(PROBES):
        gains.compared(0.0)
    for _ in range(30):
        gains.stepped(step)
        gains.came_true(right)
        for length in LENGTHS:
            gains.ran(length, run)
    return gains


def test_off_where_it_does_not_pay() -> None:
    assert learnt(1.0, 1.2, MOST).length(MOST) == MOST
    assert learnt(1.0, 1.2, MOST).length(4) == LENGTHS[0]
    slow = learnt(1.0, 3.0, 1)
    assert [slow.length(MOST) for _ in range(measured.AGAIN - 1)] == [0] * (measured.AGAIN - 1)
    assert slow.length(MOST)  # tried again now and then
    assert learnt(1.0, 1.2, 0).length(MOST) == 0
    costly = learnt(1.0, 1.2, MOST)
    for _ in range(30):
        costly.repeated(40.0)
        costly.ran(MOST, 1.2)
    assert costly.length(MOST) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([{}, {"top_k": 3}, {"top_p": 0.7}]), st.floats(0.001, 0.2))
def test_what_is_sure_is_not_changed_by_rounding(seed: int, options: dict[str, Any], rounding: float) -> None:
    noise = np.random.default_rng(seed)
    logits = (noise.standard_normal(12) * 3).astype(np.float32)
    for temperature in (0.0, 0.8):
        chosen = GenerationOptions(temperature=temperature, seed=seed, **(options if temperature else {}))
        if Sampler(chosen, np.zeros(0, np.int64), 12).unsure(logits, rounding):
            continue
        token = Sampler(chosen, np.zeros(0, np.int64), 12).pick(logits).token_id
        for _ in range(20):
            off = logits + noise.choice([-1.0, 1.0], 12).astype(np.float32) * np.float32(rounding * 0.999)
            assert Sampler(chosen, np.zeros(0, np.int64), 12).pick(off).token_id == token


def test_looking_at_a_draw_does_not_use_it_up() -> None:
    logits = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    options = GenerationOptions(temperature=1.0, seed=9)
    one, other = (Sampler(options, np.zeros(0, np.int64), 40) for _ in range(2))
    for _ in range(20):
        other.unsure(logits, 1e-4)
        other.unsure(logits, 1e-4)
        assert one.pick(logits).token_id == other.pick(logits).token_id
