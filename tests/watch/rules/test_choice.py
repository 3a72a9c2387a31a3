"""Choices: verdict words, the unsure band, thresholds of single choices, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

import edgevlm_runtime
from edgevlm.watch.rules import RULES
from edgevlm.watch.rules.choice import Options, make_rule
from edgevlm_export import inspection
from edgevlm_export.inspector import checkpoint_path
from edgevlm_runtime import VLM, Session
from edgevlm_runtime.bundle.choice_temperature import TemperatureFit, write_fit
from edgevlm_runtime.errors import EdgeVLMError

QUESTION = "Is there a defect on this part?"
YES_NO = ("yes", "no")


@pytest.fixture(scope="module")
def session(inspector: VLM) -> Session:
    """About the part that the model is least sure of."""

    def sureness(session: Session) -> float:
        return max(session.choose(QUESTION, YES_NO).probabilities.values())

    return min((inspector.session(one.image) for one in inspection.examples("test", 20)), key=sureness)


@pytest.fixture(scope="module")
def shares(session: Session) -> dict[str, float]:
    session.choose(QUESTION, YES_NO)  # the next ones are computed alike
    return session.choose(QUESTION, YES_NO).probabilities


def judged(session: Session, **options: object) -> tuple[str, str]:
    found = make_rule(Options(**{"choices": YES_NO, **options})).judge(session, QUESTION)  # type: ignore[arg-type]
    return found.verdict, found.answer


def test_a_choice_is_its_own_verdict_or_the_one_of_the_table(session: Session, shares: dict[str, float]) -> None:
    best = max(shares, key=shares.__getitem__)
    assert judged(session) == (best, best)
    assert judged(session, verdicts={best: "word"}) == ("word", best)
    found = make_rule(Options(choices=YES_NO)).judge(session, QUESTION)
    assert found.probability == found.probabilities[best] == pytest.approx(shares[best], abs=1e-6)
    assert list(found.probabilities) == list(YES_NO)


def test_the_unsure_band(session: Session, shares: dict[str, float]) -> None:
    best = max(shares, key=shares.__getitem__)
    assert judged(session, at_least=shares[best] - 1e-4) == (best, best)
    assert judged(session, at_least=min(1.0, shares[best] + 1e-4)) == ("unsure", best)


def test_a_choice_with_a_threshold_of_its_own(session: Session, shares: dict[str, float]) -> None:
    best, other = sorted(YES_NO, key=shares.__getitem__, reverse=True)
    assert shares[other] > 1e-3
    assert judged(session, take_at={other: shares[other] - 1e-4}) == (other, other)
    assert judged(session, take_at={other: shares[other] + 1e-4}) == (best, best)
    assert judged(session, take_at={best: shares[best] + 1e-4}) == ("unsure", best)
    assert judged(session, take_at={best: shares[best] - 1e-4}, at_least=1.0) == (best, best)
    assert judged(session, take_at={other: 0.0, best: 0.0}) == (other, other)
    assert judged(session, take_at={best: 0.0, other: 0.0}) == (best, best)


def test_a_question_that_decides_nothing(session: Session, shares: dict[str, float]) -> None:
    rule = make_rule(Options(choices=YES_NO, verdict=False))
    found = rule.judge(session, QUESTION)
    assert (rule.words, found.verdict, found.answer) == ((), "", max(shares, key=shares.__getitem__))


def test_words_are_the_verdicts_there_can_be() -> None:
    assert make_rule(Options(choices=("yes", "no", "maybe"), verdicts={"yes": "bad", "maybe": "unsure"})).words == (
        "bad",
        "no",
    )


def test_probabilities_are_calibrated_where_the_bundle_has_a_fit(export_bundle) -> None:
    folder = export_bundle(checkpoint_path(), precision="int8")
    image = next(inspection.examples("test", 1)).image
    plain = edgevlm_runtime.load(folder).session(image).choose(QUESTION, YES_NO)
    bundle = edgevlm_runtime.load(folder).bundle
    write_fit(bundle, TemperatureFit(bundle.content_digest, 3.0, "by hand", 50, 0.2, 0.1))
    with edgevlm_runtime.load(folder).session(image) as session:
        found = make_rule(Options(choices=YES_NO)).judge(session, QUESTION)
    assert max(found.probabilities.values()) < max(plain.probabilities.values())
    expected = edgevlm_runtime.load(folder).session(image).choose(QUESTION, YES_NO, temperature=3.0).probabilities
    assert dict(found.probabilities) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": ["yes"]}, "at least two choices"),
        ({"choices": ["yes", "yes "]}, "choices must differ"),
        ({"choices": YES_NO, "at_least": 1.5}, "bad value for at_least: 1.5: it must be a number from 0 to 1"),
        ({"choices": YES_NO, "verdicts": {"maybe": "x"}}, "it must be choices as keys: yes, no"),
        ({"choices": YES_NO, "verdicts": {"yes": " "}}, "bad value for verdicts"),
        ({"choices": YES_NO, "take_at": {"maybe": 0.1}}, "bad value for take_at"),
        ({"choices": YES_NO, "take_at": {"yes": -0.1}}, "bad value for take_at"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises((EdgeVLMError, msgspec.ValidationError), match=message):
        msgspec.convert(options, RULES.get("choice").Options)


def test_a_table_of_a_plan_becomes_options() -> None:
    table = {"choices": ["yes", "no"], "verdicts": {"yes": "reject"}, "at_least": 1, "take_at": {"yes": 0.25}}
    made = msgspec.convert(table, Options)
    assert made == Options(choices=YES_NO, verdicts={"yes": "reject"}, at_least=1.0, take_at={"yes": 0.25})
