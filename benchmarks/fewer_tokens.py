"""Fewer image tokens: which answers change, by the way the tokens are chosen, and how much sooner the first word comes.

    python -m benchmarks.fewer_tokens answers --work DIR            # inspector in int8, exported to DIR where missing
    python -m benchmarks.fewer_tokens times 576=DIR 288=DIR 144=DIR  # bundles of one model, by their image tokens

Answers are those of the test split, each picture with one question; a change is an answer that is not the one that the
bundle with all tokens gives. Times are of a picture that was not seen before, bundles taking turns. Results go into
benchmarks/results/fewer-tokens.json, each part replacing what was there of it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

import edgevlm_runtime
from benchmarks import folders, kept
from edgevlm_export import inspection
from edgevlm_export.api import ExportOptions, export
from edgevlm_runtime import VLM

RESULTS = Path(__file__).parent / "results" / "fewer-tokens.json"
ALL = 144
KEPT = (108, 72, 36)
METHODS = ("diverse", "attention", "random")
SIZES = (72, 120)
"""Sides of pictures, of a model whose own have 96 pixels."""
Figures = dict[str, Any]


def bundles(work: Path) -> dict[str, Path]:
    """Every variant of `inspector`, exported where it is missing."""
    asked: dict[str, Figures] = {"all": {}}
    asked |= {
        f"{kept} {method}": {"image_tokens": kept, "image_token_method": method} for kept in KEPT for method in METHODS
    }
    asked |= {f"{size} pixels": {"image_size": size} for size in SIZES}
    return {name: folders.ensure(work / name.replace(" ", "-"), _export(options)) for name, options in asked.items()}


def _export(options: Figures) -> Any:
    def make(folder: Path) -> None:
        plain = {"precision": "int8", "certificate": False, "self_test": False, "max_kl": float("inf")}
        export(ExportOptions("inspector", folder, **plain, **options))

    return make


def answers(vlm: VLM, count: int) -> list[str]:
    """To the questions of the test split."""
    asked = inspection.examples("test", count)
    return [vlm.ask(one.image, one.question, max_new_tokens=40).text.strip() for one in asked]


def compared(found: list[str], whole: list[str], count: int) -> Figures:
    """Right answers and changed ones, by kind of question and together."""
    right, changed = defaultdict(list), defaultdict(list)
    for example, answer, before in zip(inspection.examples("test", count), found, whole, strict=True):
        for kind in (example.kind, "all kinds"):
            right[kind].append(answer == example.answer)
            changed[kind].append(answer != before)
    return {
        kind: {"questions": len(right[kind]), "right": float(np.mean(right[kind])), "changed": float(np.mean(some))}
        for kind, some in changed.items()
    }


def first_words(loaded: dict[str, VLM], rounds: int) -> dict[str, Figures]:
    """Milliseconds until the first token of an answer about a new picture, and what of it the decoder takes; medians
    over `rounds`, after one that warms up."""
    noise = np.random.default_rng(1)
    rows = defaultdict(list)
    for number in range(rounds + 1):
        picture = noise.integers(0, 256, (336, 336, 3), dtype=np.uint8)
        for name, vlm in loaded.items():
            answer = vlm.ask(picture, "What is on the picture?", max_new_tokens=2)
            if number:
                rows[name].append((answer.timings, answer.image_tokens))
    return {
        name: {
            "image_tokens": some[0][1],
            **{part: median(asdict(timings)[part] for timings, _ in some) for part in asdict(some[0][0])},
        }
        for name, some in rows.items()
    }


def _write(part: str, figures: Figures) -> None:
    kept.store(RESULTS, part, figures=figures)


@click.group()
def main() -> None:
    """See the module's docstring."""


@main.command("answers")
@click.option("--work", type=Path, required=True)
@click.option("--n", default=1000, show_default=True, help="Questions.")
def answers_command(work: Path, n: int) -> None:
    """Which answers of inspector change."""
    rows: Figures = {}
    whole: list[str] = []
    for name, bundle in bundles(work).items():
        found = answers(edgevlm_runtime.load(bundle, engine="ort", verify="size"), n)
        whole = whole or found
        rows[name] = compared(found, whole, n)
        click.echo(f"{name}: {json.dumps(rows[name]['all kinds'])}")
    _write("answers", rows)


@main.command("times")
@click.argument("named", nargs=-1, required=True)
@click.option("--rounds", default=5, show_default=True)
def times_command(named: tuple[str, ...], rounds: int) -> None:
    """When the first word comes."""
    pairs = dict(one.split("=", 1) for one in named)
    loaded = {name: edgevlm_runtime.load(folder, engine="ort", verify="size") for name, folder in pairs.items()}
    rows = first_words(loaded, rounds)
    click.echo(json.dumps(rows, indent=1))
    _write("times", rows)


if __name__ == "__main__":
    main()
