"""Prompt lookup: how much faster answers are, where it loses, and that no token changes.

    python -m benchmarks.lookup inspector=DIR clip-l-336-qwen2-0.5b=DIR     # bundles, in int8

Each kind of answer is asked about several pictures in one session, by the model with lookup and without, taking turns.
Times are those of the tokens after the first, the machine's own noise in both. Results go into
benchmarks/results/lookup.json, a kind of answer replacing what was there of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgevlm_runtime
from benchmarks import kept
from edgevlm_export import inspection
from edgevlm_runtime import VLM

RESULTS = Path(__file__).parent / "results" / "lookup.json"
Figures = dict[str, Any]
REPORT = {
    "type": "object",
    "properties": {
        "part_is_good": {"type": "boolean"},
        "defects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "kind": {"enum": ["scratch", "dent", "missing hole", "stain"]},
                    "severity": {"enum": ["low", "medium", "high"]},
                    "position": {"enum": ["left", "right", "top", "bottom"]},
                },
                "required": ["kind", "severity", "position"],
                "additionalProperties": False,
            },
            "minItems": 2,
            "maxItems": 4,
        },
        "number_of_holes": {"enum": [0, 1, 2, 3, 4]},
    },
    "required": ["part_is_good", "defects", "number_of_holes"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of answer."""

    question: str
    options: Figures = field(default_factory=dict)


LONG = "Describe everything that you see on the part."
KINDS = {
    "json": Kind("Report as JSON.", {"form": REPORT, "max_new_tokens": 200}),
    "description": Kind(LONG, {"max_new_tokens": 96}),
    "description, sampled": Kind(LONG, {"max_new_tokens": 96, "temperature": 0.7, "top_p": 0.95, "seed": 1}),
    "description, no token twice": Kind(LONG, {"max_new_tokens": 96, "repetition_penalty": 1.8}),
}
ASKED = {"inspector": ("json",), "clip-l-336-qwen2-0.5b": tuple(KINDS)[1:]}
"""The other answers of the model that ships are a word or two; the shape has no token that ends a form."""
PICTURES = {"inspector": 20, "clip-l-336-qwen2-0.5b": 2}
SAME = {"inspector": 500, "clip-l-336-qwen2-0.5b": 0}
"""Further questions of the test set whose tokens are compared: as they are answered, and made to go on for `ON`."""
ON = 40


def measure(folder: str, name: str) -> None:
    """Every kind of answer, with figures of a model each that has seen nothing else."""
    for kind in ASKED[name]:
        _write(name, kind, _kind(_loaded(folder), KINDS[kind], _pictures(name, PICTURES[name])))
    if SAME[name]:
        _write(name, "questions", _questions(_loaded(folder), SAME[name]))
        ends = edgevlm_runtime.load(folder, engine="ort").manifest.generation.eos_token_ids
        more = {"suppress_tokens": ends, "max_new_tokens": ON}
        _write(name, "questions, made to go on", _questions(_loaded(folder), SAME[name], **more))


def _write(name: str, kind: str, figures: Figures) -> None:
    print(name, kind, json.dumps(figures), flush=True)
    kept.store(RESULTS, name, kind, figures=figures)


def _loaded(folder: str) -> tuple[VLM, VLM]:
    return edgevlm_runtime.load(folder, engine="ort"), edgevlm_runtime.load(folder, engine="ort", prompt_lookup=True)


def _pictures(name: str, count: int) -> list[Any]:
    if name == "inspector":
        return [one.image for one in inspection.examples("test", count, questions_per_image=1, start=6000)]
    noise = np.random.default_rng(1)
    return [noise.integers(0, 256, (336, 336, 3), dtype=np.uint8) for _ in range(count)]


def _kind(models: tuple[VLM, VLM], kind: Kind, pictures: list[Any]) -> Figures:
    plain, looking = models
    rows = []
    with plain.session() as one, looking.session() as other:
        for number, picture in enumerate(pictures):
            answers = {}
            for session in (one, other) if number % 2 else (other, one):
                session.show(picture)
                answers[session] = session.ask(kind.question, **kind.options)
            rows.append((answers[one], answers[other]))
    return {**_figures(rows), **_gains(looking)}


def _questions(models: tuple[VLM, VLM], count: int, **options: Any) -> Figures:
    rows = []
    for example in inspection.examples("test", count, questions_per_image=4, start=7000):
        answers = []
        for model in models:
            with model.session(example.image) as session:
                answers.append(session.ask(example.question, **options))
        rows.append((answers[0], answers[1]))
    return {**_figures(rows), **_gains(models[1])}


def _figures(rows: list[tuple[Any, Any]]) -> Figures:
    def spent(place: int, chosen: list[tuple[Any, Any]]) -> float:
        return sum(row[place].timings.decode_per_token * (len(row[place].token_ids) - 1) for row in chosen)

    tokens = sum(len(one.token_ids) - 1 for one, _ in rows)
    found: Figures = {
        "answers": len(rows),
        "same_tokens": sum(one.token_ids == other.token_ids for one, other in rows),
        "tokens_per_answer": round(tokens / len(rows) + 1, 1),
    }
    if not tokens:
        return found
    found["ms_per_token"] = round(spent(0, rows) / tokens, 3)
    found["ms_per_token_with_lookup"] = round(spent(1, rows) / tokens, 3)
    found["times_faster"] = round(spent(0, rows) / spent(1, rows), 2)
    if len(rows) > 1:
        later = rows[len(rows) // 2 :]
        found["times_faster_in_the_second_half"] = round(spent(0, later) / spent(1, later), 2)
    return found


def _gains(looking: VLM) -> Figures:
    lookups = looking.pipeline.lookups
    assert lookups is not None
    measured = {
        what: {str(length): round(value, 2) for length, value in figures.items()}
        for what, figures in lookups.gains.figures().items()
    }
    return {"rounding_allowed_for": round(lookups.gains.rounding or 0.0, 4), **measured}


def _bundles(given: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for one in given:
        name, _, folder = one.partition("=")
        yield name, folder


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="MODEL=DIR...")
def main(bundles: tuple[str, ...]) -> None:
    """Measure with each bundle, and write it down."""
    for name, folder in _bundles(bundles):
        measure(folder, name)


if __name__ == "__main__":
    main()
