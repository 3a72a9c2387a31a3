"""What the project wants to reach against others, and whether a run of the benchmark reached it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SHAPE = "clip-l-336-qwen2-0.5b"
"""The targets are of this shape."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A bundle's measure, as a multiple of the best of others'."""

    precision: str
    """Of the bundle."""
    measure: str
    at_least: float
    against: tuple[str, ...]
    """Labels of the others; the best of those that were measured counts."""


_OPENVINO = ("openvino float32", "openvino bfloat16", "openvino int8", "openvino-genai int8")
TARGETS = (
    Target("int8", "vision + projector", 3.2, ("PyTorch float32",)),
    Target("int8", "vision + projector", 1.4, _OPENVINO[:2]),
    Target("int8", "prefill", 2.5, ("llama.cpp Q8_0",)),
    Target("int8", "prefill", 1.2, _OPENVINO),
    Target("int8", "decode", 1.2, ("llama.cpp Q8_0",)),
    Target("int8", "first token", 3.0, ("PyTorch float32",)),
    Target("int4", "prefill", 1.5, ("llama.cpp Q4_0",)),
    Target("int4", "decode", 1.1, ("llama.cpp Q4_0",)),
    Target("int4-all-block128", "decode", 1.1, ("llama.cpp Q4_0",)),
    Target("int4-prefill-int8", "prefill", 1.5, ("llama.cpp Q4_0",)),
    Target("int4-prefill-int8", "decode", 1.1, ("llama.cpp Q4_0",)),
)
_SPEED: dict[str, Callable[[Row], float | None]] = {
    "vision + projector": lambda row: _inverse(row["vision"]),
    "prefill": lambda row: row["prefill"],
    "decode": lambda row: row["decode"],
    "first token": lambda row: _inverse(row["first_token"]),
}
"""Higher is better in all of them."""


def rows(found: dict[str, Any]) -> dict[str, Row]:
    """The medians of all rows of a result file, by label, under the same names; bundles by their precision."""
    collected = {row_name(engine, SHAPE): _of_engine(engine) for engine in found["bench"]["engines"]}
    for peer in found.get("peers", ()):
        medians = peer["medians"]
        collected[peer["label"]] = {
            "vision": medians["vision_ms"],
            "prefill": medians["prefill_tokens_per_s"],
            "decode": medians["decode_tokens_per_s"],
            "first_token": medians["time_to_first_token_ms"],
        }
    return collected


def ratios(ours: Row, others: Row) -> dict[str, float | None]:
    """How many times faster `ours` is, by measure; None where one of them was not measured."""
    found: dict[str, float | None] = {}
    for name, speed in _SPEED.items():
        one, other = speed(ours), speed(others)
        found[name] = None if one is None or not other else round(one / other, 3)
    return found


def reached(found: dict[str, Any]) -> list[tuple[str, str, float | None, float]]:
    """For each target: what is compared, with which row (the best of those meant), the ratio, the least wanted."""
    measured = rows(found)
    table = []
    for target in TARGETS:
        ours = measured.get(f"edgevlm {target.precision}")
        compared = {
            label: ratios(ours, row)[target.measure]
            for label, row in measured.items()
            if ours is not None and label in target.against
        }
        known = {label: ratio for label, ratio in compared.items() if ratio is not None}
        best = min(known, key=lambda label: known[label]) if known else " or ".join(target.against)
        table.append((f"{target.precision} {target.measure}", best, known.get(best), target.at_least))
    return table


def row_name(engine: dict[str, Any], comparison: str) -> str:
    """What tables call a row. Bundles are named after the comparison and how they are held."""
    label = str(engine["label"])
    return f"edgevlm {label.removeprefix(f'{comparison}-')}" if engine["name"] == "edgevlm" else label


def _of_engine(engine: dict[str, Any]) -> Row:
    return {
        "vision": engine["vision_ms"]["p50"] + engine["projector_ms"]["p50"],
        "prefill": engine["prefill_tokens_per_s"],
        "decode": engine["decode_tokens_per_s"],
        "first_token": engine["time_to_first_token_ms"]["p50"],
    }


def _inverse(milliseconds: float | None) -> float | None:
    return None if not milliseconds else 1e3 / milliseconds
