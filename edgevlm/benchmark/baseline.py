"""Saved results, and whether new ones are worse."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from edgevlm.benchmark.results import FORMAT, VERSION, EngineResult, Results
from edgevlm.benchmark.workload import Facts
from edgevlm.json_text import json_text, plain
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_json

MEASURES: dict[str, bool] = {
    "vision_ms": False,
    "prefill_tokens_per_s": True,
    "decode_tokens_per_s": True,
    "time_to_first_token_ms": False,
    "repeat_question_ttft_ms": False,
    "total_ms": False,
    "load_ms": False,
    "peak_rss_mib": False,
}
"""What is compared, by its median where there is one: name, and whether more is better."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measure, then and now."""

    engine: str
    """Label of the bundle's row."""
    measure: str
    """One of the keys of a row."""
    before: float
    """The saved figure, the median where it has percentiles."""
    now: float
    """The new one."""
    worse_by: float
    """Share of the saved figure; negative where it became better."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The run beside a saved one."""

    passed: bool
    """Whether nothing is worse by more than `--tolerance`; the exit code is 1 when not."""
    changes: tuple[Change, ...]
    """Every measure of every bundle that both runs have."""


@dataclass(frozen=True, slots=True)
class BenchReport(Results):
    """What was measured. The file of `--save` has the same keys but `baseline`."""

    baseline: Comparison | None = field(kw_only=True)
    """With `--compare`: what changed since."""


def report(results: Results, found: list[Change], worse: list[Change]) -> BenchReport:
    """The command's result: `found` is what was compared with a baseline, `worse` what of it is too bad."""
    compared = Comparison(not worse, tuple(found)) if found else None
    return BenchReport(**{one.name: getattr(results, one.name) for one in fields(results)}, baseline=compared)


def dump(results: Results) -> str:
    """Results as `load` reads them from a file."""
    return json_text(plain(results)) + "\n"


def load(path: Path) -> Results:
    """Read saved results. Raises `EdgeVLMError` for anything else."""
    again = "write one with --save"
    try:
        found = read_json(path, dict[str, Any], "saved benchmark", remedy=again)
    except FileNotFoundError:
        raise EdgeVLMError(f"cannot read the baseline: no such file: {path}: {again}") from None
    if found.get("format") != FORMAT:
        raise EdgeVLMError(f"not a saved benchmark: {path}: {again}")
    if found.get("version") != VERSION:
        raise EdgeVLMError(f"saved by another version of edgevlm bench: {path}: {again}")
    try:
        return msgspec.convert(found, Results)
    except msgspec.ValidationError as error:
        raise EdgeVLMError(f"damaged saved benchmark: {path}: {error}: {again}") from error


def check_workload(before: Results, workload: Facts, path: Path) -> None:
    """Raise `EdgeVLMError` when the saved results are of another workload."""
    for one in fields(before.workload):
        then, now = getattr(before.workload, one.name), getattr(workload, one.name)
        if one.name not in ("repeats", "warmup") and then != now:
            raise EdgeVLMError(
                f"the baseline measured another workload: {path}: {one.name.replace('_', ' ')} was {_said(then)}, "
                f"is {_said(now)}: measure the same, or save a new one"
            )


def changes(before: Results, now: Results) -> list[Change]:
    """Every measure of every bundle that both have: found by its folder's name, or because each has only one.

    Raises `EdgeVLMError` when there is none.
    """
    old, new = _bundles(before), _bundles(now)
    pairs = [(old[label], engine) for label, engine in new.items() if label in old]
    if not pairs and len(old) == len(new) == 1:
        pairs = list(zip(old.values(), new.values(), strict=True))
    if not pairs:
        raise EdgeVLMError(f"the baseline has none of the bundles measured: it has {', '.join(old)}")
    return [_change(name, one, other) for one, other in pairs for name in MEASURES]


def _bundles(results: Results) -> dict[str, EngineResult]:
    return {engine.label: engine for engine in results.engines if engine.name == "edgevlm"}


def _change(name: str, old: EngineResult, new: EngineResult) -> Change:
    before, now = _median(old, name), _median(new, name)
    worse = before / now - 1 if MEASURES[name] else now / before - 1
    return Change(new.label, name, before, now, round(worse, 4))


def _median(engine: EngineResult, name: str) -> float:
    value = getattr(engine, name)
    return float(value if isinstance(value, int | float) else value.p50)


def _said(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
