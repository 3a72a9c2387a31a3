"""`edgevlm run --choices`."""

from __future__ import annotations

import json

import pytest

import edgevlm
from tests.support import records

QUESTION = ("--prompt", "is there a scratch")


def test_json(invoke, tiny_bundle, picture):
    result = invoke("run", tiny_bundle, "--image", picture, *QUESTION, "--choices", "yes, no,not sure", "--json")
    assert result.exit_code == 0, result.stderr
    records.check("run", json.loads(result.stdout))
    (answer,) = json.loads(result.stdout)["answers"]
    with edgevlm.load(tiny_bundle).session(picture) as session:
        expected = session.choose(QUESTION[1], ["yes", "no", "not sure"])
    assert answer["choice"] == answer["text"] == expected.text
    assert answer["probabilities"] == pytest.approx(expected.probabilities)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert 0 < answer["choices_mass"] <= 1
    assert (answer["token_ids"], answer["finish_reason"]) == ([], "choice")
    assert answer["image_tokens"] > 0


def test_abstaining_and_temperature(invoke, tiny_bundle, picture):
    common = ("run", tiny_bundle, "--image", picture, *QUESTION, "--choices", "yes,no")
    flat = invoke(*common, "--choice-temperature", 1e6, "--abstain-below", 0.6, "--json")
    (answer,) = json.loads(flat.stdout)["answers"]
    assert answer["choice"] is None
    assert answer["probabilities"] == pytest.approx({"yes": 0.5, "no": 0.5}, abs=1e-3)
    assert invoke(*common, "--abstain-below", 1).stdout == "(no verdict)\n"
    plain = invoke(*common)
    assert plain.stdout.strip() in ("yes", "no")
    assert " %" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--choices", "yes"], "at least two choices"),
        (["--choices", "yes,yes"], "choices must differ"),
        (["--choices", "yes,no", "--abstain-below", "2"], "--abstain-below"),
        (["--choices", "yes,no", "--choice-temperature", "0"], "temperature"),
        (["--choices", "yes,no", "--max-new-tokens", "5"], "leave out --max-new-tokens"),
        (["--abstain-below", "0.5"], "need --choices"),
    ],
)
def test_refused(invoke, refused, tiny_bundle, arguments, named):
    assert named in refused(invoke("run", tiny_bundle, *QUESTION, *arguments))
