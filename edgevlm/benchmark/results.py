"""What was measured: `edgevlm bench --json` and `--save` are these dataclasses as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.workload import Facts

FORMAT = "edgevlm-bench"
VERSION = 1
REFERENCE = ("pytorch", "float32")
"""Name and precision of the row that `ratios` compare with."""

SPREADS = (
    "preprocess_ms",
    "vision_ms",
    "projector_ms",
    "prefill_ms",
    "decode_ms_per_token",
    "time_to_first_token_ms",
    "repeat_question_ttft_ms",
    "total_ms",
)
"""Fields of a round of which percentiles are taken."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of the rounds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of a sustained run."""

    until_s: float
    rounds: int
    rounds_per_minute: float
    time_to_first_token_ms: float
    """Median, as the next."""
    decode_tokens_per_s: float
    clock_mhz: float | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class Sustained:
    """A run without pauses, in intervals: where the machine gets hot, later ones are slower."""

    minutes: float
    intervals: tuple[Interval, ...]
    last_over_first: float
    """Rounds a minute in the last interval as a share of those in the first."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One engine. Times in milliseconds; percentiles and medians are over the rounds kept in `rows`."""

    label: str
    name: str
    """The engine: "edgevlm" or "pytorch"."""
    precision: str
    source: str
    model_bytes: int
    import_cpu_ms: float
    """Processor time of importing the engine's packages in a fresh interpreter."""
    load_ms: float
    """From the files, which the operating system had in memory, to ready; digests checked."""
    prompt_tokens_computed: int
    """Prompt positions that a first question computes."""
    preprocess_ms: Spread
    vision_ms: Spread
    projector_ms: Spread
    prefill_ms: Spread
    decode_ms_per_token: Spread
    time_to_first_token_ms: Spread
    repeat_question_ttft_ms: Spread
    total_ms: Spread
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    repeat_over_first: float
    """Median time to first token of a second question about the same image, as a share of the first's."""
    rss_loaded_mib: float
    peak_rss_mib: float
    energy_j: float | None
    """Median of a round; None where the machine does not tell."""
    tokens_like_reference: int | None
    """Tokens of the first answer, from its start, that are the reference's."""
    rows: tuple[Sample, ...]
    sustained: Sustained | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """One run of the benchmark."""

    machine: dict[str, Any]
    workload: Facts
    engines: tuple[EngineResult, ...]
    ratios: dict[str, dict[str, Any] | None]
    """`pytorch`: how many times better the first bundle is than PyTorch in float32; None without that row.
    `by_engine`: the same for every row, by label. `first_bundle`: every further bundle against the first one."""
    format: str = field(default=FORMAT, kw_only=True)
    version: int = field(default=VERSION, kw_only=True)


def spread(values: Sequence[float]) -> Spread:
    """Percentiles, interpolated linearly."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return Spread(round(float(p50), 4), round(float(p95), 4), round(float(p99), 4))


def summarize(rows: Sequence[Sample]) -> dict[str, Any]:
    """The fields of `EngineResult` that follow from its rows."""
    spreads = {name: spread([getattr(row, name) for row in rows]) for name in SPREADS}
    energy = [row.energy_j for row in rows if row.energy_j is not None]
    return {
        **spreads,
        "prompt_tokens_computed": rows[-1].prefill_tokens,
        "prefill_tokens_per_s": round(1e3 * rows[-1].prefill_tokens / spreads["prefill_ms"].p50, 3),
        "decode_tokens_per_s": round(1e3 / spreads["decode_ms_per_token"].p50, 3),
        "repeat_over_first": round(spreads["repeat_question_ttft_ms"].p50 / spreads["time_to_first_token_ms"].p50, 4),
        "energy_j": round(statistics.median(energy), 3) if len(energy) == len(rows) else None,
        "rows": tuple(rows),
    }


def speedups(engine: EngineResult, against: EngineResult) -> dict[str, float]:
    """How many times better `engine` is: above 1 it is faster, or smaller in memory."""
    return {
        "vision": _ratio(against.vision_ms.p50, engine.vision_ms.p50),
        "vision_and_projector": _ratio(
            against.vision_ms.p50 + against.projector_ms.p50, engine.vision_ms.p50 + engine.projector_ms.p50
        ),
        "prefill": _ratio(engine.prefill_tokens_per_s, against.prefill_tokens_per_s),
        "decode": _ratio(engine.decode_tokens_per_s, against.decode_tokens_per_s),
        "time_to_first_token": _ratio(against.time_to_first_token_ms.p50, engine.time_to_first_token_ms.p50),
        "repeat_question_time_to_first_token": _ratio(
            against.repeat_question_ttft_ms.p50, engine.repeat_question_ttft_ms.p50
        ),
        "total": _ratio(against.total_ms.p50, engine.total_ms.p50),
        "peak_rss": _ratio(against.peak_rss_mib, engine.peak_rss_mib),
    }


def compare(engines: Sequence[EngineResult]) -> dict[str, dict[str, Any] | None]:
    """`Results.ratios` of these rows, the first bundle first among them."""
    first, *others = [engine for engine in engines if engine.name == "edgevlm"]
    reference = next((engine for engine in engines if (engine.name, engine.precision) == REFERENCE), None)
    return {
        "pytorch": None if reference is None else speedups(first, reference),
        "by_engine": None if reference is None else {e.label: speedups(e, reference) for e in engines},
        "first_bundle": {engine.label: speedups(engine, first) for engine in others} or None,
    }


def to_json(results: Results) -> dict[str, Any]:
    """Plain data."""
    plain: dict[str, Any] = msgspec.to_builtins(results)
    return plain


def _ratio(above: float, below: float) -> float:
    return round(above / max(below, 1e-9), 3)
