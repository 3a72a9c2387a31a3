"""Do probabilities of choices mean what they say, and which temperature makes them?

Expected calibration error (Guo et al. 2017): answers are grouped by the probability their choice was given; the error
is the mean distance between that probability and the share that was right, weighed by group size. Temperature scaling
fits one number by the likelihood of the right choices; it changes no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevlm.evaluation.answerers import Given
from edgevlm.evaluation.datasets import Case
from edgevlm_runtime.errors import EdgeVLMError

BINS = 10
FEWEST = 20
"""Questions a temperature can be fitted on."""
_COLDEST, _HOTTEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Scores of the choices of each question, and which choice is right."""

    scores: tuple[Scores, ...]
    right: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How honest probabilities are at one temperature, and without one."""

    n: int
    """Questions with choices."""
    temperature: float
    """What scores are divided by before they become probabilities."""
    accuracy: float
    """Share of questions whose likeliest choice is right."""
    ece: float
    """Expected calibration error at `temperature`: mean distance of probabilities from the share that is right."""
    ece_raw: float
    """The same at temperature 1."""
    points: tuple[tuple[float, float, int], ...]
    """For each bin with answers: mean probability of the likeliest choice, share right, answers."""


def collect(cases: Iterable[Case], answers: Mapping[str, Given]) -> Verdicts:
    """Cases with choices of which one is the known answer, and whose choices were scored.

    Raises `EdgeVLMError` where a choice has no score: answers may come from a file.
    """
    scores, right = [], []
    for case in cases:
        given = answers[case.id]
        if given.scores and case.answer in case.choices:
            missing = [choice for choice in case.choices if choice not in given.scores]
            if missing:
                raise EdgeVLMError(f"the stored answer to {case.id} scores no choice {missing[0]!r}: start again")
            scores.append(np.array([given.scores[choice] for choice in case.choices]))
            right.append(case.choices.index(case.answer))
    return Verdicts(tuple(scores), tuple(right))


def reliability(verdicts: Verdicts, temperature: float) -> Reliability | None:
    """Figures at `temperature`; None without verdicts."""
    if not len(verdicts):
        return None
    said, hit = _confidence(verdicts, temperature)
    return Reliability(
        n=len(verdicts),
        temperature=temperature,
        accuracy=float(hit.mean()),
        ece=_error(said, hit),
        ece_raw=_error(*_confidence(verdicts, 1.0)),
        points=_points(said, hit),
    )


def fit_temperature(verdicts: Verdicts) -> float:
    """The temperature with the least negative log-likelihood, which is convex in 1/T: golden-section search.

    Raises `EdgeVLMError` when there is none: of answers that are all right, colder is always likelier.
    """
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    while high - low > 1e-6 * high:
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, b) if _loss(verdicts, 1 / a) < _loss(verdicts, 1 / b) else (a, high)
    temperature = 2 / (low + high)
    if not _COLDEST * 1.01 < temperature < _HOTTEST / 1.01:
        raise EdgeVLMError(
            f"no temperature fits these {len(verdicts)} questions: nearly all verdicts are right, or chance: "
            "use more of them, or harder ones"
        )
    return temperature


def _loss(verdicts: Verdicts, temperature: float) -> float:
    pairs = zip(verdicts.scores, verdicts.right, strict=True)
    return -sum(float(np.log(_probabilities(scores, temperature)[right] + 1e-300)) for scores, right in pairs)


def _probabilities(scores: Scores, temperature: float) -> Scores:
    from edgevlm_runtime.asking.choices import weigh

    return weigh(scores, temperature)


def _confidence(verdicts: Verdicts, temperature: float) -> tuple[Scores, NDArray[np.bool_]]:
    weighed = [_probabilities(scores, temperature) for scores in verdicts.scores]
    said = np.array([one.max() for one in weighed])
    hit = np.array([int(one.argmax()) == right for one, right in zip(weighed, verdicts.right, strict=True)])
    return said, hit


def _groups(said: Scores) -> Sequence[NDArray[np.int64]]:
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    return [found for one in range(BINS) if (found := np.flatnonzero(bins == one)).size]


def _error(said: Scores, hit: NDArray[np.bool_]) -> float:
    return float(sum(abs(said[g].mean() - hit[g].mean()) * g.size for g in _groups(said)) / said.size)


def _points(said: Scores, hit: NDArray[np.bool_]) -> tuple[tuple[float, float, int], ...]:
    return tuple((float(said[g].mean()), float(hit[g].mean()), int(g.size)) for g in _groups(said))
