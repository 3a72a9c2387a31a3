"""Every installed engine on every graph of a bundle: does it answer as ONNX Runtime does here, and how fast?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.checks.stages import Outputs, Stage, stages
from edgevlm_runtime.checks.verification import self_test_problem
from edgevlm_runtime.engines import ENGINES, make_engine
from edgevlm_runtime.engines.assigned.words import DEFAULT
from edgevlm_runtime.engines.base import Array, Engine, Graph
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.model import VLM
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.pipeline import Pipeline, requests

log = logging.getLogger(__name__)

Advance = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine on one graph."""

    engine: str
    """As `--engine` has it."""
    identity: str
    """Library, version, device and precision."""
    passed: bool
    """Whether the bundle passes its self-test with this graph on it."""
    problem: str | None
    """Why not, in one line."""
    cosine_min: float | None = None
    """The smallest cosine of a row of the graph's outputs with ONNX Runtime's; null where it gives none."""
    max_abs: float | None = None
    """The largest difference of two values."""
    ms: float | None = None
    """Median time of the graph's work; null where it was not measured, as of what does not pass."""


@dataclass(frozen=True, slots=True)
class GraphTrials:
    """All engines on one graph."""

    graph: str
    """The decoder's work is a prompt and 16 tokens, with its prefill graph where it has one."""
    trials: tuple[Trial, ...]
    """ONNX Runtime's is the first."""


@dataclass(frozen=True)
class Tried:
    """What was found for one stage, and the graphs that were loaded for it."""

    stage: Stage
    trials: GraphTrials
    graphs: Mapping[str, Mapping[str, Graph]]
    """By engine."""


def installed(options: RuntimeOptions) -> dict[str, Engine]:
    """Engines beside ONNX Runtime that can be made here, by their words, those for other devices or precisions too."""
    found: dict[str, Engine] = {}
    for name in ENGINES:
        if name == DEFAULT:
            continue
        try:
            found[name] = engine = make_engine(replace(options, engine=name))
            for words in getattr(engine, "variants", ()):
                found[words] = make_engine(replace(options, engine=words))
        except EdgeVLMError as error:
            log.debug("engine %s: %s", name, error)
    return found


def compare(parts: Pipeline, rounds: int, progress: Advance) -> Iterator[Tried]:
    """Try every installed engine on every graph; `parts` run on ONNX Runtime. `rounds` of each take turns, after one
    that warms up; none leaves the time unmeasured. One stage after the other, so that who drops what was found before
    has the graphs of one stage in memory.

    Raises `BundleError` for a bundle without a self-test.
    """
    engines = installed(parts.options)
    return (_try(parts, stage, engines, rounds, progress) for stage in stages(parts))


def _try(parts: Pipeline, stage: Stage, engines: Mapping[str, Engine], rounds: int, progress: Advance) -> Tried:
    own = {name: parts.graphs[name] for name in stage.graphs}
    works = {DEFAULT: stage.prepare(own)}
    expected, loaded = works[DEFAULT](), {DEFAULT: own}
    trials = [_judge(parts, DEFAULT, parts.decoder_engine, own, expected, expected)]
    for number, (words, engine) in enumerate(engines.items()):
        progress(f"{stage.name}: comparing", number, len(engines))
        try:
            graphs = _load(parts, stage, engine)
            work = stage.prepare(graphs)
            trial = _judge(parts, words, engine.identity, graphs, work(), expected)
        except EdgeVLMError as error:
            trial = Trial(words, engine.identity, False, str(error))
        trials.append(trial)
        if trial.passed and rounds:
            works[words], loaded[words] = work, graphs
    times = medians(works, rounds, lambda done: progress(f"{stage.name}: measuring", done, rounds))
    timed = tuple(replace(trial, ms=times.get(trial.engine)) for trial in trials)
    return Tried(stage, GraphTrials(stage.name, timed), loaded)


def _load(parts: Pipeline, stage: Stage, engine: Engine) -> dict[str, Graph]:
    wanted = requests(parts.bundle, parts.options)
    return {request.name: engine.load(request) for request in wanted if request.name in stage.graphs}


def _judge(
    parts: Pipeline, words: str, identity: str, graphs: Mapping[str, Graph], got: Outputs, expected: Outputs
) -> Trial:
    cosine, largest = difference(got, expected)
    problem = self_test_problem(run_self_test(VLM.of(parts.with_graphs(graphs))))
    return Trial(words, identity, problem is None, problem, cosine, largest)


def difference(got: Outputs, expected: Outputs) -> tuple[float, float]:
    """Smallest cosine of two rows, and largest difference of two values; (-1, infinity) for other shapes and for what
    are no numbers."""
    cosines, largest = [1.0], [0.0]
    for name, wanted in expected.items():
        array = got.get(name)
        if array is None or array.shape != wanted.shape or not np.isfinite(array).all():
            return -1.0, float("inf")
        cosines.append(_cosine(array.astype(np.float64), wanted.astype(np.float64)))
        largest.append(float(np.max(np.abs(array.astype(np.float64) - wanted), initial=0.0)))
    return min(cosines), max(largest)


def _cosine(one: Array, other: Array) -> float:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    products = np.einsum("...i,...i->...", one, other)
    return float(np.min(np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0), initial=1.0))


def medians(
    works: Mapping[str, Callable[[], Outputs]], rounds: int, progress: Callable[[int], None]
) -> dict[str, float]:
    """Milliseconds of each work, medians of the rounds, which take turns, there and back."""
    seconds: dict[str, list[float]] = {words: [] for words in works}
    order: Sequence[str] = list(works)
    for turn in range(rounds):
        for words in order if turn % 2 == 0 else reversed(order):
            begin = time.perf_counter()
            works[words]()
            seconds[words].append(time.perf_counter() - begin)
        progress(turn + 1)
    return {words: round(1e3 * float(np.median(times)), 3) for words, times in seconds.items() if times}
