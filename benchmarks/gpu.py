"""Everything about a GPU in one call, on a machine that has one:

    pip uninstall -y onnxruntime && pip install onnxruntime-gpu tensorrt-rtx cuda-python    # beside a CUDA torch
    python -m benchmarks.gpu

For `inspector` and the CLIP-L/336 + Qwen2-0.5B shape, in float16 and int4: latency and numerics of the CUDA provider
beside PyTorch on the same GPU, and a try of TensorRT-RTX, from compiling to answering. What fails is a result too: its
error line goes into the table. The first rounds are not counted; figures are medians, each taken after the device has
finished.

Writes benchmarks/results/gpu/NAME.json and NAME.md, NAME being the GPU's.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu_bundles import MODELS, compile_engines, export_bundle, source_of
from benchmarks.gpu_measure import CANDIDATES, Candidate, attempt, reference_logits, run, timed
from benchmarks.gpu_report import write_report
from edgevlm.benchmark.engines.base import Spec
from edgevlm.benchmark.run import describe_machine
from edgevlm.benchmark.workload import Workload, prepare
from edgevlm.json_text import plain
from edgevlm_runtime.bundle.folder import Bundle

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "gpu"
PRECISIONS = ("fp16", "int4")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(MODELS)), help="One model; may repeat.")
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=5, show_default=True)
@click.option("--new-tokens", type=click.IntRange(2), default=32, show_default=True)
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=HERE / "results" / "gpu")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=WORK, help="Room for bundles.")
@click.option("--keep", is_flag=True, help="Do not remove checkpoints and bundles.")
def main(
    only: tuple[str, ...], repeats: int, warmup: int, new_tokens: int, results: Path, work: Path, keep: bool
) -> None:
    """Measure what this machine's GPU does."""
    gpu = find_gpu()
    workload = Workload(repeats=repeats, warmup=warmup, new_tokens=new_tokens, provider="cuda")
    machine = plain(describe_machine())
    found: dict[str, Any] = {"gpu": gpu, "machine": machine, "tensorrt-rtx": rtx_version(), "models": {}}
    work.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    file = results / f"{re.sub(r'[^a-z0-9]+', '-', gpu['name'].lower()).strip('-')}.json"
    for model in only or MODELS:
        found["models"][model] = {
            precision: _measure(model, precision, workload, work, gpu) for precision in PRECISIONS
        }
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")  # a later failure loses nothing
        click.echo(write_report(file, found))
    if not keep:
        shutil.rmtree(work)


def find_gpu() -> dict[str, Any]:
    """Name, compute capability, memory and driver's CUDA. Leaves with exit code 2 and one line where there is none."""
    import torch

    if not torch.cuda.is_available():
        why = "this torch is a CPU build" if torch.version.cuda is None else "CUDA finds no GPU"
        click.echo(
            f"Error: no GPU to measure: {why}: run this on a machine with an NVIDIA GPU and a CUDA torch", err=True
        )
        sys.exit(2)
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "sm": 10 * properties.major + properties.minor,
        "memory_mib": properties.total_memory >> 20,
        "cuda": torch.version.cuda,
    }


def rtx_version() -> str | None:
    """Of the installed tensorrt-rtx, None without one."""
    try:
        return metadata.version("tensorrt-rtx")
    except metadata.PackageNotFoundError:
        return None


def _measure(model: str, precision: str, workload: Workload, work: Path, gpu: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of one model in one precision: PyTorch first, then every candidate. What fails is a row as well."""
    from benchmarks.gpu_torch import TorchOnGpu

    found = attempt(partial(source_of, model, work))
    if "error" in found:
        return [{"name": "checkpoint", **found}]
    source = found["done"]
    targets = dict.fromkeys(candidate.target for candidate in CANDIDATES)
    bundles = {target: attempt(partial(export_bundle, source, model, precision, target, work)) for target in targets}
    first = next((made["done"] for made in bundles.values() if "done" in made), None)
    if first is None:
        return [{"name": "export", **next(iter(bundles.values()))}]
    found = attempt(lambda: prepare(workload, Bundle.open(first), work))
    if "error" in found:
        return [{"name": "questions", **found}]
    task, facts = found["done"]
    rows = []
    for dtype in ("float16", "bfloat16", "float32"):
        engine = partial(TorchOnGpu, Spec("pytorch", source, dtype), task)
        rows.append({"name": f"PyTorch {dtype}", **attempt(partial(timed, engine, task, workload))})
    rows[0]["facts"] = asdict(facts)
    expected = attempt(partial(reference_logits, source, task))
    if "error" in expected:
        return [*rows, {"name": "PyTorch float32 logits, on the processor", **expected}]
    compiled = {
        target: attempt(partial(compile_engines, bundles[target]["done"], gpu["sm"]))
        for target in dict.fromkeys(candidate.target for candidate in CANDIDATES if candidate.compiled)
        if "done" in bundles[target]
    }
    for candidate in CANDIDATES:
        click.echo(f"{model} {precision}: {candidate.name}", err=True)
        rows.append({"name": candidate.name, **_row(candidate, bundles, compiled, task, workload, expected["done"])})
    return rows


def _row(
    candidate: Candidate,
    bundles: dict[str, dict[str, Any]],
    compiled: dict[str, dict[str, Any]],
    *measured: Any,
) -> dict[str, Any]:
    """What a candidate does, or why it has nothing to run; `measured`: the last arguments of `run`."""
    made = bundles[candidate.target]
    engines = compiled.get(candidate.target, {}) if candidate.compiled else {}
    for failed in (made, engines):
        if "error" in failed:
            return failed
    return {**attempt(partial(run, candidate, made["done"], *measured)), "compile": engines or None}


if __name__ == "__main__":
    main()
