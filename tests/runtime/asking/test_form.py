"""Answers that have the form that was asked for, whatever the model would have said."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgevlm_runtime import VLM, Form
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.text.constraint import Constraints

Picture = Callable[[int], Image.Image]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "defect": {"enum": ["none", "scratch", "dent"]},
        "holes": {"type": "integer", "minimum": 0, "maximum": 9},
        "codes": {"type": "array", "items": {"type": "string", "maxLength": 2}, "maxItems": 2},
    },
    "required": ["defect", "holes", "codes"],
    "additionalProperties": False,
}


class Report(pydantic.BaseModel):
    """As a caller has it."""

    defect: bool
    holes: int = pydantic.Field(ge=0, le=9)


class Struct(msgspec.Struct):
    """The same with msgspec."""

    defect: bool


@dataclasses.dataclass
class Plain:
    """The same without either."""

    defect: bool


@pytest.mark.parametrize("temperature", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_json_of_a_schema(vlm: VLM, picture: Picture, temperature: float, seed: int) -> None:
    answer = vlm.ask(
        picture(1), "report", form=SCHEMA, max_new_tokens=200, temperature=temperature, seed=seed, suppress_tokens=()
    )
    assert answer.finish_reason == "stop"
    found = json.loads(answer.text)
    assert list(found) == ["defect", "holes", "codes"]
    assert found["defect"] in SCHEMA["properties"]["defect"]["enum"]
    assert 0 <= found["holes"] <= 9
    assert len(found["codes"]) <= 2


def test_answers_still_depend_on_the_picture(vlm: VLM, picture: Picture) -> None:
    """The form leaves the model its choices."""
    texts = {vlm.ask(picture(n), "code?", form=Form.regex("[A-Za-z0-9]{6}"), max_new_tokens=9).text for n in range(6)}
    assert len(texts) > 1
    assert all(re.fullmatch("[A-Za-z0-9]{6}", text) for text in texts)


def test_one_of_a_list(vlm: VLM, picture: Picture) -> None:
    words = ["good", 'ba"d', "unsure\n", "goods"]
    for temperature in (0.0, 3.0):
        answer = vlm.ask(picture(1), "is it?", form=Form.one_of(words), max_new_tokens=30, temperature=temperature)
        assert answer.text in words
        assert answer.finish_reason == "stop"


def test_what_is_cut_says_so(vlm: VLM, picture: Picture) -> None:
    form = Form.json(SCHEMA)
    for limit in range(1, 12):
        answer = vlm.ask(picture(1), "report", form=form, max_new_tokens=limit)
        assert answer.finish_reason == "length"
        assert len(answer.token_ids) == limit == len(answer.logprobs)
        with pytest.raises(EdgeVLMError, match="has not the form"):
            form.parse(answer.text)


def test_a_full_context_cuts_as_without_a_form(vlm: VLM, picture: Picture) -> None:
    small = VLM(vlm.bundle, dataclasses.replace(vlm.options, max_context=40))
    answer = small.ask(picture(1), "r", form=Form.regex("a{200}"), max_new_tokens=200)
    assert answer.finish_reason == "length"
    assert answer.prompt_tokens + len(answer.token_ids) == 40 + 1  # the last is not fed back
    assert set(answer.text) == {"a"}


def test_forced_tokens_are_the_models_own_positions(
    vlm: VLM, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens run together leave the cache, and give log-probabilities, as those generated one by one do."""
    runs: list[int] = []
    extend, step = Context.extend, Context.step
    monkeypatch.setattr(Context, "extend", lambda self, ids: (runs.append(ids.size), extend(self, ids))[1])
    monkeypatch.setattr(Context, "step", lambda self, token: (runs.append(1), step(self, token))[1])
    answer = vlm.ask(picture(1), "report", form=Form.json(SCHEMA), max_new_tokens=200)
    assert sum(runs) == len(answer.token_ids) - 1  # the last is not fed back
    assert len(runs) < sum(runs) / 2  # keys and punctuation came together
    monkeypatch.undo()
    one_by_one = _one_by_one(vlm, picture(1), "report", answer.token_ids)
    assert answer.logprobs == pytest.approx(one_by_one, abs=1e-4)


def test_a_chat_goes_on_after_it(vlm: VLM, picture: Picture) -> None:
    with vlm.chat(picture(1)) as chat:
        first = chat.ask("report", form=Form.regex("abc[0-9]xyz"), max_new_tokens=20)
        second = chat.ask("and then?", max_new_tokens=6)
    with vlm.chat(picture(1)) as chat:
        chat.ask("report", form=Form.one_of([first.text]), max_new_tokens=20)
        again = chat.ask("and then?", max_new_tokens=6)
    assert second.token_ids == again.token_ids
    assert second.prefix_tokens_reused >= first.prompt_tokens


def test_streams_and_stop_strings(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        whole = session.ask("report", form=Form.regex("key: [a-z]{3}; end"), max_new_tokens=40)
        pieces = list(session.stream("report", form=Form.regex("key: [a-z]{3}; end"), max_new_tokens=40))
        stopped = session.ask("report", form=Form.regex("key: [a-z]{3}; end"), max_new_tokens=40, stop=(";",))
    assert "".join(pieces) == whole.text
    assert whole.text.startswith(stopped.text)
    assert (stopped.finish_reason, stopped.text.count(";")) == ("stop_string", 0)


@pytest.mark.parametrize(("kind", "wanted"), [(Report, ["defect", "holes"]), (Struct, ["defect"]), (Plain, ["defect"])])
def test_types_give_what_they_are(vlm: VLM, picture: Picture, kind: Any, wanted: list[str]) -> None:
    form = Form.of(kind)
    answer = vlm.ask(picture(1), "report", form=kind, max_new_tokens=60)
    found = form.parse(answer.text)
    assert isinstance(found, kind)
    assert isinstance(found.defect, bool)
    assert list(json.loads(answer.text)) == wanted


def test_any_json_object(vlm: VLM, picture: Picture) -> None:
    """A random model seldom ends one; where it does, it is one."""
    for seed in range(8):
        answer = vlm.ask(picture(1), "r", form=Form.json(), max_new_tokens=60, temperature=2.0, seed=seed)
        assert answer.text.startswith("{")
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.text), dict)


def test_sessions_in_threads(vlm: VLM, picture: Picture) -> None:
    texts: dict[int, str] = {}

    def ask(number: int) -> None:
        texts[number] = vlm.ask(picture(1), "code?", form=Form.regex(f"{number}[a-z]{{4}}"), max_new_tokens=9).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(re.fullmatch(f"{number}[a-z]{{4}}", text) for number, text in texts.items())
    assert len(texts) == 6


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Form.regex("a("), "bad form"),
    (lambda: Form.regex("(?=a)b"), "bad form"),
    (lambda: Form.json({"type": "no such type"}), "bad form"),
    (lambda: Form.json({"$ref": "#/nowhere"}), "bad form"),
    (lambda: Form.json({"$ref": "http://example.org/schema"}), "bad form"),
    (lambda: Form.json({"type": "object", "properties": 3}), "bad form"),
    (lambda: Form.json("{"), "not a JSON schema"),
    (lambda: Form.json("[1]"), "must be an object"),
    (lambda: Form.json("[" * 10_000), "not a JSON schema"),
    (lambda: Form.json({"const": {1, 2}}), "not a JSON schema"),
    (lambda: Form.regex(""), "regular expression"),
    (lambda: Form.regex("a" * 300_000), "too long"),
    (lambda: Form.one_of([]), "list of texts"),
    (lambda: Form.one_of("abc"), "list of texts"),
    (lambda: Form.one_of(["a", ""]), "list of texts"),
    (lambda: threading.Lock, "no form of an answer"),
    (lambda: 7, "no form of an answer"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_bad_forms_are_refused_in_one_line(vlm: VLM, picture: Picture, make: Callable[[], Any], says: str) -> None:
    with vlm.session(picture(1)) as session:
        with pytest.raises(EdgeVLMError, match=says) as caught:
            session.ask("report", form=make(), max_new_tokens=4)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        assert session.ask("report", max_new_tokens=2).token_ids  # usable as before


def test_a_bundle_that_never_ends_cannot_follow_a_form(vlm: VLM) -> None:
    with pytest.raises(EdgeVLMError, match="no end-of-sequence token"):
        Constraints(vlm.tokenizer, 262, ()).make(Form.json())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        st.sampled_from(
            [{"type": "boolean"}, {"enum": ["a", "ä\n"]}, {"type": "integer", "minimum": -5, "maximum": 20}]
        ),
        min_size=1,
        max_size=4,
    ),
    temperature=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_whatever_the_schema_what_ends_parses(vlm: VLM, fields: dict[str, Any], temperature: float) -> None:
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    answer = vlm.ask((), "report", form=schema, max_new_tokens=400, temperature=temperature, seed=1)
    assert answer.finish_reason == "stop"
    assert list(json.loads(answer.text)) == list(fields)


def _one_by_one(vlm: VLM, image: Image.Image, question: str, token_ids: tuple[int, ...]) -> list[float]:
    """Log-probabilities of `token_ids`, each fed back alone."""
    parts = vlm.pipeline
    inputs = [parts.prepare(image)]
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    prompt = parts.assemble(messages, inputs, parts.context_tokens)
    context = parts.new_context()
    logits = context.prefill(prompt, [parts.encoder.encode(one).embeddings for one in inputs].__getitem__)
    assert logits is not None
    found = []
    for token in token_ids:
        wide = logits.astype(np.float64)
        found.append(float(wide[token] - np.logaddexp.reduce(wide)))
        logits = context.step(token)
    return found
