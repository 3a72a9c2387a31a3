"""Contexts on disk: what a question about a known picture costs after a restart, and what storing one costs.

    python -m benchmarks.context_cache inspector=DIR clip-l-336-qwen2-0.5b=DIR     # bundles, in int8

Every question is asked by a process of its own that has just loaded the bundle, with a folder and without one, taking
turns. Results go into benchmarks/results/context-cache.json, a model replacing what was there of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgevlm_runtime
from benchmarks import kept

RESULTS = Path(__file__).parent / "results" / "context-cache.json"
QUESTIONS = ("What is there to be seen?", "Is there a defect?")
SIDE = {"inspector": 96, "clip-l-336-qwen2-0.5b": 336}
VARIANTS = ("none", "images", "contexts")
"""What is kept on disk."""
Figures = dict[str, Any]


def ask(bundle: str, name: str, variant: str, folder: str, number: int) -> Figures:
    """One question, in this process."""
    places = {"none": {}, "images": {"image_cache_dir": folder}, "contexts": {"context_cache_dir": folder}}
    vlm = edgevlm_runtime.load(bundle, engine="ort", verify="size", **places[variant])
    picture = np.random.default_rng(1).integers(0, 256, (SIDE[name], SIDE[name], 3), dtype=np.uint8)
    with vlm.session(picture) as session:
        begun = time.perf_counter()
        answer = session.ask(QUESTIONS[number], max_new_tokens=8)
        wall = (time.perf_counter() - begun) * 1e3
    return {
        "first_token_ms": answer.timings.time_to_first_token,
        "after_the_answer_ms": wall - (answer.timings.total - answer.timings.preprocess),
        "tokens": list(answer.token_ids),
        "reused": answer.prefix_tokens_reused,
        "prompt": answer.prompt_tokens,
    }


def measure(bundle: str, name: str, rounds: int) -> Figures:
    """Medians of a second question after a restart."""
    rows: dict[str, list[Figures]] = {variant: [] for variant in VARIANTS}
    stored: list[Figures] = []
    size = 0
    for _ in range(rounds):
        for variant in VARIANTS:
            with tempfile.TemporaryDirectory() as folder:
                first = _child(bundle, name, variant, folder, 0)
                rows[variant].append(_child(bundle, name, variant, folder, 1))
                if variant == "contexts":
                    stored.append(first)
                    size = sum(file.stat().st_size for file in Path(folder).iterdir())
    found: Figures = {"rounds": rounds, "file_bytes": size}
    found["storing_ms"] = _median(stored, "after_the_answer_ms")
    for variant, asked in rows.items():
        found[variant] = {
            "first_token_ms": _median(asked, "first_token_ms"),
            "reused": asked[0]["reused"],
            "prompt": asked[0]["prompt"],
            "same_tokens": all(one["tokens"] == rows["none"][0]["tokens"] for one in asked),
        }
    return found


def _median(rows: list[Figures], key: str) -> float:
    return round(statistics.median(row[key] for row in rows), 1)


def _child(*arguments: Any) -> Figures:
    command = [sys.executable, "-m", "benchmarks.context_cache", "--child", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found: Figures = json.loads(done.stdout)
    return found


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="MODEL=DIR...")
@click.option("--rounds", type=int, default=5, show_default=True)
def main(bundles: tuple[str, ...], rounds: int) -> None:
    """Measure with each bundle, and write it down."""
    for one in bundles:
        name, _, bundle = one.partition("=")
        figures = measure(bundle, name, rounds)
        kept.store(RESULTS, name, figures=figures)
        print(name, json.dumps(figures, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        bundle, name, variant, folder, number = sys.argv[2:]
        print(json.dumps(ask(bundle, name, variant, folder, int(number))))
    else:
        main()
