"""Choices: probabilities against the decoder's own logits, position by position, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.asking.choices import ChoiceOptions, log_softmax, verdict, weigh
from edgevlm_runtime.engines.ort_graph import OrtBinding
from edgevlm_runtime.errors import Cancelled, ContextOverflow, EdgeVLMError

QUESTION = "is it broken"
EOS = 257


def by_hand(vlm: edgevlm_runtime.VLM, images: list[Image.Image], choices: list[str], end: bool) -> np.ndarray:
    """Scores from the logits of the whole prompt with the choice behind it, computed from the start each time.

    The tiny tokenizer has one token per byte, so a choice's tokens are known; both forms are tried.
    """
    inputs = [vlm.pipeline.prepare(image) for image in images]
    embeddings = [vlm.pipeline.encoder.encode(one).embeddings for one in inputs]
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": QUESTION}]
    text = vlm.pipeline.prompts.render([{"role": "user", "content": content}])
    forms = []
    for form in ("", " "):
        sums, firsts = [], {}
        for choice in choices:
            encoded = vlm.pipeline.prompts.encode_text(text + form + choice, [one.prepared for one in inputs])
            whole = replace(encoded, image_keys=tuple(one.key for one in inputs))
            tokens = vlm.tokenizer.encode(form + choice, "")
            rows = log_softmax(vlm.pipeline.new_context(len(whole)).score(whole, embeddings.__getitem__))[
                -len(tokens) - 1 :
            ]
            sums.append(sum(rows[i][token] for i, token in enumerate(tokens)) + (rows[-1][EOS] if end else 0))
            firsts[tokens[0]] = np.exp(rows[0][tokens[0]])
        forms.append((sum(firsts.values()), sums))
    return np.array(max(forms)[1])


@pytest.mark.parametrize(
    ("choices", "end"),
    [(["y", "n"], False), (["yes", "no", "can not tell"], False), (["1", "10", "2"], True), (["ja", "ö"], False)],
)
def test_scores_are_the_decoders(vlm: edgevlm_runtime.VLM, picture: Any, choices: list[str], end: bool) -> None:
    image = picture(1)
    with vlm.session(image) as session:
        choice = session.choose(QUESTION, choices)
    expected = by_hand(vlm, [image], choices, end)
    np.testing.assert_allclose(list(choice.scores.values()), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(list(choice.probabilities.values()), np.exp(log_softmax(expected)), rtol=0, atol=1e-4)
    assert choice.best == choice.text == str(choice) == choices[int(np.argmax(expected))]
    assert choice.mass == pytest.approx(np.exp(np.logaddexp.reduce(expected)), rel=1e-3)


def test_choosing_leaves_answers_as_they_are(vlm: edgevlm_runtime.VLM, picture: Any) -> None:
    with vlm.session(picture(2)) as session:
        before = session.ask(QUESTION)
        chosen = session.choose(QUESTION, ["yes", "no"])
        after, again = session.ask(QUESTION), session.choose(QUESTION, ["no", "yes"])
    assert after.token_ids == before.token_ids
    assert chosen.prefix_tokens_reused == chosen.prompt_tokens - 1
    assert chosen.image_cache == "hit"
    assert again.scores == pytest.approx(chosen.scores, rel=1e-4)


def test_three_positions_a_token(mrope_bundle: Path) -> None:
    vlm = edgevlm_runtime.load(mrope_bundle, threads=1)
    with vlm.session() as session:
        choice = session.choose(QUESTION, ["yes", "no"])
    expected = by_hand(vlm, [], ["yes", "no"], False)
    np.testing.assert_allclose(list(choice.scores.values()), expected, rtol=0, atol=1e-4)


def test_a_chat_sees_its_history_and_does_not_keep_the_choice(vlm: edgevlm_runtime.VLM, picture: Any) -> None:
    image, choices = picture(4), ["yes", "no"]
    with vlm.chat(image) as chat, vlm.session(image) as session:
        fresh, alone = chat.choose(QUESTION, choices), session.choose(QUESTION, choices)
        assert chat.messages == ()
        assert (fresh.image_tokens, fresh.prompt_tokens) == (alone.image_tokens, alone.prompt_tokens) == (4, 19)
        np.testing.assert_allclose(list(fresh.scores.values()), by_hand(vlm, [image], choices, False), rtol=1e-4)
        assert alone.scores == pytest.approx(fresh.scores, rel=1e-4)
        chat.ask("what is it", max_new_tokens=4)
        later = chat.choose(QUESTION, choices)
        assert later.image_tokens == 4
        chat.ask("and this", images=picture(5), max_new_tokens=4)
        assert chat.choose(QUESTION, choices).image_tokens == 8
        assert len(chat.messages) == 4
    assert later.prompt_tokens > fresh.prompt_tokens
    assert later.scores != pytest.approx(fresh.scores, rel=1e-4)


def test_cancelled(vlm: edgevlm_runtime.VLM, picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an event, and by the session; which then goes on."""
    event = threading.Event()
    event.set()
    with vlm.session(picture(4)) as session:
        with pytest.raises(Cancelled):
            session.choose(QUESTION, ["yes", "no"], cancel=event)
        encode = type(vlm.pipeline.encoder).encode
        monkeypatch.setattr(
            type(vlm.pipeline.encoder), "encode", lambda self, one: session.cancel() or encode(self, one)
        )
        with pytest.raises(Cancelled):
            session.choose(QUESTION, ["yes", "no"])
        monkeypatch.undo()
        assert session.choose(QUESTION, ["yes", "no"]).best in ("yes", "no")
        assert session.last_answer is None


def test_a_bad_temperature_fit_is_told_before_anything_is_computed(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_bundle.with_name(own_bundle.name + ".calibration.json").write_text("{}")
    vlm = edgevlm_runtime.load(own_bundle, threads=1)
    monkeypatch.setattr(OrtBinding, "run", lambda self: pytest.fail("computed"))
    with vlm.session() as session, pytest.raises(EdgeVLMError, match="not a temperature fit"):
        session.choose(QUESTION, ["yes", "no"])


def test_temperature_and_abstaining() -> None:
    scores = np.log([0.03, 0.01])
    sharp = verdict(("a", "b"), scores, ChoiceOptions(temperature=0.5), **_rest())
    plain = verdict(("a", "b"), scores, ChoiceOptions(abstain_below=0.8), **_rest())
    assert sharp.probabilities["a"] == pytest.approx(0.9)
    assert plain.probabilities["a"] == pytest.approx(0.75)
    assert (plain.text, plain.best, str(plain), sharp.text) == (None, "a", "", "a")
    assert plain.mass == pytest.approx(0.04)
    assert weigh(scores, 1e6) == pytest.approx([0.5, 0.5], abs=1e-3)


def _rest() -> dict[str, Any]:
    timings = edgevlm_runtime.Timings()
    return {"timings": timings, "prompt_tokens": 1, "image_tokens": 0, "image_cache": "none", "prefix_tokens_reused": 0}


@pytest.mark.parametrize(
    ("choices", "options", "message"),
    [
        (["yes"], {}, "at least two choices"),
        (["yes", " "], {}, "none of them empty"),
        (["yes", "yes "], {}, "choices must differ"),
        ("yes,no", {}, "must be a list"),
        (["yes", "no</s>"], {}, "'no</s>' contains a special token"),
        (["<image>", "no"], {}, "'<image>' contains a special token"),
        (["yes", "no"], {"temperature": 0.0}, "temperature"),
        (["yes", "no"], {"temperature": float("nan")}, "temperature"),
        (["yes", "no"], {"abstain_below": 1.5}, "abstain_below"),
        (["yes", "no"], {"warmth": 1}, "unknown choice option 'warmth'"),
    ],
)
def test_refused(vlm: edgevlm_runtime.VLM, choices: Any, options: dict[str, Any], message: str) -> None:
    with vlm.session() as session, pytest.raises(EdgeVLMError, match=message) as caught:
        session.choose(QUESTION, choices, **options)
    assert "\n" not in str(caught.value)


def test_no_room_for_the_choices(fresh: Callable[..., edgevlm_runtime.VLM]) -> None:
    vlm = fresh(max_context=30)
    with vlm.session() as session:
        with pytest.raises(ContextOverflow, match="shorten"):
            session.choose("is it", ["yes", "a very long answer indeed"])
        assert session.choose("is it", ["yes", "no"]).best in ("yes", "no")


def test_a_closed_session(vlm: edgevlm_runtime.VLM) -> None:
    session = vlm.session()
    session.close()
    with pytest.raises(EdgeVLMError, match="closed"):
        session.choose(QUESTION, ["yes", "no"])
