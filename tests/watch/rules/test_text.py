"""Free text: the first pattern that is found says the verdict."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgevlm.watch.rules.text import Options, Pattern, make_rule
from edgevlm_export import inspection
from edgevlm_runtime import VLM, Session
from edgevlm_runtime.errors import EdgeVLMError

QUESTION = "What colour is the part?"


@pytest.fixture(scope="module")
def session(inspector: VLM) -> Session:
    return inspector.session(next(inspection.examples("test", 1)).image)


@pytest.fixture(scope="module")
def said(session: Session) -> str:
    return session.ask(QUESTION).text


def judged(session: Session, *patterns: tuple[str, str], **options: object) -> str:
    made = Options(patterns=tuple(Pattern(match=match, verdict=word) for match, word in patterns), **options)  # type: ignore[arg-type]
    return make_rule(made).judge(session, QUESTION).verdict


def test_the_first_pattern_that_is_found(session: Session, said: str) -> None:
    assert said.isalpha()
    assert judged(session, ("^nothing$", "bad"), (said, "ok"), (".", "bad")) == "ok"
    assert judged(session, (said.upper(), "bad")) == "unsure"
    assert judged(session, (f"(?i){said.upper()}", "ok")) == "ok"
    assert judged(session, (f"^{said}$", "ok")) == "ok"
    assert judged(session, ("^$", "bad"), otherwise="reject") == "reject"


def test_what_is_kept_of_the_answer(session: Session, said: str) -> None:
    found = make_rule(Options()).judge(session, QUESTION)
    assert (found.answer, found.verdict, found.probability) == (said, "", None)
    assert found.tokens == session.ask(QUESTION).token_ids
    assert len(make_rule(Options(max_new_tokens=1)).judge(session, QUESTION).tokens) == 1


def test_an_answer_that_is_not_sure_enough(session: Session, said: str) -> None:
    answer = session.ask(QUESTION)
    mean = float(np.prod(np.exp(answer.logprobs)) ** (1 / len(answer.logprobs)))
    sure = make_rule(Options(patterns=(Pattern(match=".", verdict="ok"),), at_least=mean - 1e-3)).judge(
        session, QUESTION
    )
    assert sure.verdict == "ok"
    assert sure.probability == pytest.approx(mean, abs=1e-4)
    assert judged(session, (".", "ok"), at_least=1.0) == "unsure"


def test_without_patterns_or_by_choice_it_decides_nothing(session: Session) -> None:
    pattern = (Pattern(match=".", verdict="ok"),)
    for options in (Options(), Options(patterns=pattern, verdict=False)):
        rule = make_rule(options)
        assert (rule.words, rule.judge(session, QUESTION).verdict) == ((), "")
    assert make_rule(Options(patterns=pattern)).words == ("ok",)
    assert make_rule(Options(patterns=pattern, otherwise="bad")).words == ("ok", "bad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patterns": [{"match": "(", "verdict": "ok"}]}, r"'\(' is no regular expression"),
        ({"patterns": [{"match": "", "verdict": "ok"}]}, "bad value for match"),
        ({"patterns": [{"match": ".", "verdict": ""}]}, "bad value for verdict"),
        ({"otherwise": " "}, "bad value for otherwise"),
        ({"max_new_tokens": 0}, "bad value for max_new_tokens"),
        ({"at_least": 2.0}, "bad value for at_least"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises((EdgeVLMError, msgspec.ValidationError), match=message):
        msgspec.convert(options, Options)
