"""The results as text for a console and as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from edgevlm.benchmark.results import EngineResult, Results
from edgevlm.report import render
from edgevlm.report.about import machine_summary

STAGES = {
    "preprocess": "preprocess_ms",
    "vision encoder": "vision_ms",
    "projector": "projector_ms",
    "prefill": "prefill_ms",
}
"""What happens before the first token, in order."""
LATENCIES = {
    **STAGES,
    "time to first token": "time_to_first_token_ms",
    "second question, first token": "repeat_question_ttft_ms",
    "decode, per token": "decode_ms_per_token",
    "whole answer": "total_ms",
}


def rows(results: Results) -> list[tuple[str, ...]]:
    """A table: a column for each engine, a line for each measure."""
    engines = results.engines
    table: list[tuple[str, ...]] = [("", *(engine.label for engine in engines))]
    table.append(("precision", *(engine.precision for engine in engines)))
    for name, field in LATENCIES.items():
        table.append((f"{name} ms", *(_percentiles(engine, field) for engine in engines)))
    table.append(("prefill tokens/s", *(f"{engine.prefill_tokens_per_s:.1f}" for engine in engines)))
    table.append(("decode tokens/s", *(f"{engine.decode_tokens_per_s:.1f}" for engine in engines)))
    table.append(("load ms", *(f"{engine.load_ms:.0f}" for engine in engines)))
    table.append(("import ms (processor)", *(f"{engine.import_cpu_ms:.0f}" for engine in engines)))
    table.append(("peak memory MiB", *(f"{engine.peak_rss_mib:.0f}" for engine in engines)))
    if any(engine.energy_j is not None for engine in engines):
        table.append(("energy J", *("-" if e.energy_j is None else f"{e.energy_j:.2f}" for e in engines)))
    return table


def page(results: Results) -> str:
    """The HTML page: figures, charts, the machine, every round."""
    engines = results.engines
    return render(
        "bench.html.jinja",
        results=results,
        workload=results.workload,
        engines=engines,
        first=engines[0],
        labels=[engine.label for engine in engines],
        latencies=LATENCIES,
        charts_of={
            "Before the first token, milliseconds": _chart(engines, STAGES),
            "First token, milliseconds": _chart(engines, dict(list(LATENCIES.items())[4:6])),
        },
        throughput={
            "prefill": [round(engine.prefill_tokens_per_s, 1) for engine in engines],
            "decode": [round(engine.decode_tokens_per_s, 1) for engine in engines],
        },
        memory={"peak memory": [round(engine.peak_rss_mib) for engine in engines]},
        machine=machine_summary(),
    )


def _chart(engines: Sequence[EngineResult], fields: dict[str, str]) -> dict[str, list[float]]:
    """Medians, by measure and then engine."""
    return {name: [round(getattr(engine, field).p50, 2) for engine in engines] for name, field in fields.items()}


def _percentiles(engine: EngineResult, field: str) -> str:
    found = getattr(engine, field)
    return f"{found.p50:.1f} ({found.p95:.1f})"
