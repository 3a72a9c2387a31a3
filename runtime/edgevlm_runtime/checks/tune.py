"""Fit a bundle to this machine: the fastest engine for each graph, and the fastest chunk of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgevlm_runtime.checks.engines import Advance, Trial, Tried, compare
from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.decoding.tuning import Tuning
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.chosen import PROCESSOR
from edgevlm_runtime.engines.assigned.words import DEFAULT, FILLED_BY, Assignment
from edgevlm_runtime.engines.base import Graph
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.model import VLM
from edgevlm_runtime.options import need
from edgevlm_runtime.pipeline import Pipeline

LEAST_GAIN = 1.05
"""How many times faster than ONNX Runtime an engine must be: less may be chance, and one engine is simpler than two."""


@dataclass(frozen=True, slots=True)
class GraphChoice:
    """The engine of one graph."""

    graph: str
    """Its name."""
    engine: str
    """The fastest that passes the self-test, as `--engine` has it."""
    gain: float
    """How many times faster than on ONNX Runtime."""
    trials: tuple[Trial, ...]
    """What was measured; ONNX Runtime's is the first."""


Picked = tuple[GraphChoice, Mapping[str, Graph]]
"""A choice, with the graphs that go in place of ONNX Runtime's."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found."""

    chunk: Tuning
    """Of the prompt."""
    choices: tuple[GraphChoice, ...]
    """None where engines were not compared."""
    not_compared: str | None
    """Why not, in one line."""
    file: Path | None
    """Where it is kept; None where it is not."""

    @property
    def engine(self) -> str | None:
        """The choice as `--engine` would say it; None where engines were not compared."""
        moved = {one.graph: one.engine for one in self.choices if one.engine != DEFAULT}
        return str(Assignment(DEFAULT, moved)) if self.choices else None


def tune(vlm: VLM, rounds: int, progress: Advance, *, engines: bool = True, keep: bool = True) -> Fit:
    """Measure, and remember it for later loads, unless told not to `keep` it.

    `engines`: whether to compare them, for which `vlm` must be loaded with `engine="ort"` and the provider "cpu"; else
    only chunks are measured. Raises `EdgeVLMError` for no rounds, and where the result cannot be written.
    """
    need(rounds >= 1, "rounds", rounds, "a whole number of at least 1")
    parts = vlm.pipeline
    if keep:
        tuned.check_place(parts.tuning_key)
    known = tuned.known(parts.tuning_key)
    choices, why_not = _choices(parts, rounds, progress) if engines else ([], "an engine was named")
    graphs = {name: graph for _, own in choices for name, graph in own.items()}
    chosen = tuple(choice for choice, _ in choices)
    decoder = next((one for one in chosen if one.graph == "decoder"), None)
    measured = (parts.with_graphs(graphs) if graphs else parts).measure_chunks(
        rounds, lambda done, total: progress("measuring chunks", done, total)
    )
    identity = parts.decoder_engine if decoder is None else _identity(decoder)
    found = replace(known, prefill_chunks={**known.prefill_chunks, identity: measured.prefill_chunk})
    if chosen:
        found = replace(found, engines=_engines(parts, chosen), identities={c.engine: _identity(c) for c in chosen})
    file = tuned.remember(parts.tuning_key, found) if keep else None
    return Fit(measured, chosen, why_not, file)


def _choices(parts: Pipeline, rounds: int, progress: Advance) -> tuple[list[Picked], str | None]:
    if parts.options.provider.lower() != PROCESSOR:
        return [], "a provider was named"
    try:
        picked = [_fastest(one) for one in compare(parts, rounds, progress)]
    except BundleError as error:
        return [], str(error)
    if not all(choice.trials[0].passed for choice, _ in picked):
        return [], "the bundle does not pass its self-test here: see `edgevlm verify`"
    moved = [pair for pair in picked if pair[0].engine != DEFAULT]
    if len(moved) > 1:  # each passed alone
        together = parts.with_graphs({name: graph for _, own in moved for name, graph in own.items()})
        if not run_self_test(VLM.of(together)).passed:
            slow: list[Picked] = [(replace(choice, engine=DEFAULT, gain=1.0), {}) for choice, _ in picked]
            return slow, "together the faster engines do not pass the self-test"
    return picked, None


def _fastest(tried: Tried) -> Picked:
    base, *others = tried.trials.trials
    passing = [one for one in others if one.passed and one.ms is not None]
    best = min(passing, key=lambda one: one.ms or 0.0, default=base)
    gain = (base.ms or 0.0) / (best.ms or 1.0)
    if best is base or gain < LEAST_GAIN:
        return GraphChoice(tried.stage.name, DEFAULT, 1.0, tried.trials.trials), {}
    return GraphChoice(tried.stage.name, best.engine, round(gain, 3), tried.trials.trials), tried.graphs[best.engine]


def _identity(choice: GraphChoice) -> str:
    return next(trial.identity for trial in choice.trials if trial.engine == choice.engine)


def _engines(parts: Pipeline, choices: tuple[GraphChoice, ...]) -> dict[str, str]:
    found = {choice.graph: choice.engine for choice in choices}
    return {name: found[FILLED_BY.get(name, name)] for name in parts.graphs}
