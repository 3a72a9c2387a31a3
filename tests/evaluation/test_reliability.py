"""Calibration error and temperature, on answers whose honesty is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm.evaluation.answerers import Given
from edgevlm.evaluation.datasets import Case
from edgevlm.evaluation.reliability import Verdicts, collect, fit_temperature, reliability
from edgevlm_runtime.errors import EdgeVLMError


def verdicts(n: int, exaggeration: float) -> Verdicts:
    """Two choices; the probability said is the true one, its logit times `exaggeration`."""
    rng = np.random.default_rng(5)
    truth = rng.uniform(0.02, 0.98, n)
    right = (rng.random(n) > truth).astype(int)
    scores = np.log(np.stack([truth, 1 - truth], axis=1)) * exaggeration
    return Verdicts(tuple(scores), tuple(right.tolist()))


def test_honest_probabilities() -> None:
    honest = verdicts(4000, 1.0)
    found = reliability(honest, 1.0)
    assert found is not None
    assert found.ece < 0.02
    assert fit_temperature(honest) == pytest.approx(1.0, abs=0.1)
    assert sum(count for _, _, count in found.points) == found.n == 4000
    assert all(abs(said - right) < 0.1 for said, right, count in found.points if count > 50)


@pytest.mark.parametrize("exaggeration", [4.0, 0.3])
def test_temperature_undoes_exaggeration(exaggeration: float) -> None:
    loud = verdicts(4000, exaggeration)
    temperature = fit_temperature(loud)
    assert temperature == pytest.approx(exaggeration, rel=0.1)
    found = reliability(loud, temperature)
    assert found is not None
    assert found.ece < 0.02
    assert found.ece_raw > 0.1


def test_no_temperature_fits_what_is_always_right() -> None:
    always = Verdicts(tuple(np.log([0.8, 0.2]) for _ in range(30)), (0,) * 30)
    with pytest.raises(EdgeVLMError, match="no temperature fits these 30 questions"):
        fit_temperature(always)
    with pytest.raises(EdgeVLMError, match="harder ones"):
        fit_temperature(Verdicts(always.scores, (1,) * 30))


def test_the_error_by_hand() -> None:
    """Four answers at 0.9 of which two are right, two at 0.6 of which one is: (4 * 0.4 + 2 * 0.1) / 6."""
    scores = [np.log([p, 1 - p]) for p in (0.9, 0.9, 0.9, 0.9, 0.6, 0.6)]
    found = reliability(Verdicts(tuple(scores), (0, 0, 1, 1, 0, 1)), 1.0)
    assert found is not None
    assert found.ece == pytest.approx((4 * 0.4 + 2 * 0.1) / 6)
    assert found.accuracy == pytest.approx(0.5)
    assert found.points == (pytest.approx((0.6, 0.5, 2)), pytest.approx((0.9, 0.5, 4)))


def test_what_counts() -> None:
    cases = [
        Case("a", (), "a", "?", "no", "k", ("yes", "no")),
        Case("b", (), "b", "?", "maybe", "k", ("yes", "no")),
        Case("c", (), "c", "?", "no", "k", ("yes", "no")),
        Case("d", (), "d", "?", "no", "k"),
    ]
    scores = {"yes": -1.0, "no": -0.5}
    answers = {name: Given(name, scores=scores) for name in "ab"}
    answers |= {"c": Given("c", error="x"), "d": Given("d")}
    found = collect(cases, answers)
    assert found.right == (1,)
    assert reliability(collect(cases[1:], answers), 1.0) is None
