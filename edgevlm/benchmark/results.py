"""What was measured: `edgevlm bench --json` and `--save` are these dataclasses as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.workload import Facts
from edgevlm.machine import Processor

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
    """Median."""
    p95: float
    """95th percentile."""
    p99: float
    """99th percentile."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of a sustained run."""

    until_s: float
    """When it ended, in seconds from the start of the run."""
    rounds: int
    """Rounds that ended in it."""
    rounds_per_minute: float
    """The same per minute."""
    time_to_first_token_ms: float
    """Median of its rounds."""
    decode_tokens_per_s: float
    """Median of its rounds."""
    clock_mhz: float | None
    """Clock of the processor; null where the machine does not tell."""
    temperature_c: float | None
    """Temperature of the processor; null where the machine does not tell."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """A run without pauses, in intervals: where the machine gets hot, later ones are slower."""

    minutes: float
    """How long it ran."""
    intervals: tuple[Interval, ...]
    """In their order."""
    last_over_first: float
    """Rounds per minute in the last interval as a share of those in the first."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One engine. Times in milliseconds; percentiles and medians are over the rounds kept in `rows`."""

    label: str
    """The name of its row: the bundle's folder, or PyTorch and its dtype."""
    name: str
    """The engine: "edgevlm" or "pytorch"."""
    precision: str
    """How its weights are stored."""
    source: str
    """The bundle's folder; or the PyTorch model's alias, folder or id."""
    model_bytes: int
    """Size of its weights, on disk for a bundle."""
    import_cpu_ms: float
    """Processor time of importing the engine's packages in a fresh interpreter."""
    load_ms: float
    """From the files, which the operating system had in memory, to ready; digests checked."""
    prompt_tokens_computed: int
    """Prompt positions that a first question computes."""
    preprocess_ms: Spread
    """Decoding, resizing and arranging the image."""
    vision_ms: Spread
    """Vision encoder."""
    projector_ms: Spread
    """Projector."""
    prefill_ms: Spread
    """Decoder, over the prompt."""
    decode_ms_per_token: Spread
    """Decoder, for each token after the first."""
    time_to_first_token_ms: Spread
    """From the image file and the question to the first token."""
    repeat_question_ttft_ms: Spread
    """The same for a second question about the same image."""
    total_ms: Spread
    """From the image file and the question to the last token."""
    prefill_tokens_per_s: float
    """Prompt positions computed per second, from the median of `prefill_ms`."""
    decode_tokens_per_s: float
    """Tokens generated per second, from the median of `decode_ms_per_token`."""
    repeat_over_first: float
    """Median time to first token of a second question about the same image, as a share of the first's."""
    rss_loaded_mib: float
    """Memory of the engine's process once the model was loaded, in MiB."""
    peak_rss_mib: float
    """The most memory it ever had, in MiB."""
    energy_j: float | None
    """Median of a round; None where the machine does not tell."""
    tokens_like_reference: int | None
    """Tokens of the first answer, from its start, that are the reference's."""
    rows: tuple[Sample, ...]
    """Every round."""
    sustained: Sustained | None = None
    """With `--minutes`: a run without pauses."""


Speedups = dict[str, float]
"""By measure, how many times better: above 1 it is faster, or smaller in memory."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times better: `vision`, `vision_and_projector`, `prefill`, `decode`, `time_to_first_token`,
    `repeat_question_time_to_first_token`, `total`, `peak_rss`; above 1 it is faster, or smaller in memory."""

    pytorch: Speedups | None
    """The first bundle against PyTorch in float32; null without that row."""
    by_engine: dict[str, Speedups] | None
    """Every row against PyTorch in float32, by label; null without that row."""
    first_bundle: dict[str, Speedups] | None
    """Every further bundle against the first one, by label; null without one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What it ran on."""

    processor: Processor
    """The processor."""
    memory_bytes: int
    """Main memory."""
    platform: str
    """Operating system, its version, and the architecture."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the packages that matter here."""
    busy_before: float
    """Share of the processor that other programs took before the first round."""


@dataclass(frozen=True, slots=True)
class Results:
    """One run of the benchmark."""

    machine: Machine
    """What it ran on."""
    workload: Facts
    """What was asked."""
    engines: tuple[EngineResult, ...]
    """What was measured, one row per engine."""
    ratios: Ratios
    """Rows compared."""
    format: str = field(default=FORMAT, kw_only=True)
    """Names the format of the file of `--save`."""
    version: int = field(default=VERSION, kw_only=True)
    """Version of that format."""


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


def speedups(engine: EngineResult, against: EngineResult) -> Speedups:
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


def compare(engines: Sequence[EngineResult]) -> Ratios:
    """The ratios of these rows, the first bundle first among them."""
    first, *others = [engine for engine in engines if engine.name == "edgevlm"]
    reference = next((engine for engine in engines if (engine.name, engine.precision) == REFERENCE), None)
    return Ratios(
        pytorch=None if reference is None else speedups(first, reference),
        by_engine=None if reference is None else {e.label: speedups(e, reference) for e in engines},
        first_bundle={engine.label: speedups(engine, first) for engine in others} or None,
    )


def _ratio(above: float, below: float) -> float:
    return round(above / max(below, 1e-9), 3)
