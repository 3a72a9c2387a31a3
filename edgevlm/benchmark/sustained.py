"""A sustained run cut into intervals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.results import Interval

INTERVALS = 12


def intervals(rounds: Sequence[dict[str, Any]], seconds: float) -> tuple[Interval, ...]:
    """At most `INTERVALS` parts, in order; each ends with a round, and none is empty.

    `rounds`: `at_s` (end of the round), `sample`, `clock_mhz`, `temperature_c`.
    """
    found: list[Interval] = []
    part: list[dict[str, Any]] = []
    begin = 0.0
    for number, one in enumerate(rounds):
        part.append(one)
        due = one["at_s"] >= seconds * (len(found) + 1) / INTERVALS
        last = number == len(rounds) - 1
        if last or (due and rounds[-1]["at_s"] > one["at_s"]):
            found.append(_interval(part, begin))
            begin, part = one["at_s"], []
    return tuple(found)


def _interval(part: Sequence[dict[str, Any]], begin: float) -> Interval:
    samples: list[Sample] = [one["sample"] for one in part]
    end = part[-1]["at_s"]
    return Interval(
        until_s=round(end, 3),
        rounds=len(part),
        rounds_per_minute=round(60 * len(part) / (end - begin), 3),
        time_to_first_token_ms=round(statistics.median(s.time_to_first_token_ms for s in samples), 3),
        decode_tokens_per_s=round(1e3 / statistics.median(s.decode_ms_per_token for s in samples), 3),
        clock_mhz=_mean(part, "clock_mhz"),
        temperature_c=_mean(part, "temperature_c"),
    )


def _mean(part: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [one[name] for one in part if one[name] is not None]
    return round(statistics.fmean(values), 1) if values else None
