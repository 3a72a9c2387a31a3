"""Vision encoder and projector on every installed engine, their rounds taking turns: a table in Markdown.

    python -m benchmarks.engines BUNDLE... [--rounds 5] [--threads 2]

The picture is random, of the model's own size. Cosine and largest difference of the embeddings are beside those of
ONNX Runtime in the same bundle; memory is what the process holds more once an engine has loaded its two graphs and run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

import edgevlm_runtime
from edgevlm.benchmark.workload import model_size
from edgevlm_runtime.checks.engines import difference, installed, medians
from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.pipeline import Pipeline, requests

GRAPHS = ("vision_encoder", "projector")
HEADER = "| bundle | engine | vision + projector ms | smallest cosine | largest difference | memory MiB |"
RULE = "| --- | --- | ---: | ---: | ---: | ---: |"


def measure(folder: Path, rounds: int, threads: int | None) -> list[str]:
    """A row for each engine that loads both graphs."""
    vlm = edgevlm_runtime.load(folder, engine="ort", threads=threads, verify="size", image_cache_bytes=0)
    parts = vlm.pipeline
    width, height = model_size(parts.bundle)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    works, memory = {}, {}
    for words, engine in {"ort": parts.engine, **installed(parts.options)}.items():
        before = psutil.Process().memory_info().rss
        works[words] = _work(parts, engine, picture)
        memory[words] = (psutil.Process().memory_info().rss - before) / 2**20
    found = {words: work() for words, work in works.items()}
    times = medians(works, rounds, lambda _: None)
    table = []
    for words, ms in times.items():
        cosine, largest = difference({"x": found[words]}, {"x": found["ort"]})
        figures = f"{ms:.0f} | {cosine:.5f} | {largest:.3g} | {memory[words]:.0f}"
        table.append(f"| {folder.name} | {words} | {figures} |")
    return table


def _work(parts: Pipeline, engine: Engine, picture: np.ndarray[Any, Any]) -> Callable[[], np.ndarray[Any, Any]]:
    wanted = [request for request in requests(parts.bundle, parts.options) if request.name in GRAPHS]
    own = parts.with_graphs({request.name: engine.load(request) for request in wanted})
    image = own.prepare(picture)
    own.encoder.compute(image)
    return lambda: own.encoder.compute(image).embeddings


@click.command(help=__doc__)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=5)
@click.option("--threads", type=int)
def main(bundles: tuple[Path, ...], rounds: int, threads: int | None) -> None:
    """Measure and print."""
    click.echo(f"{HEADER}\n{RULE}")
    for folder in bundles:
        click.echo("\n".join(measure(folder, rounds, threads)))


if __name__ == "__main__":
    main()
