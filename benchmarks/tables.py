"""benchmarks/results/*.json as Markdown tables, with machine and versions beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import kept
from benchmarks.peers_tables import missing, peer_lines, reference_of, remarks, target_table
from benchmarks.plots import FOLDER
from benchmarks.targets import row_name

SHOWN = ("edgevlm", "onnxruntime", "torch", "transformers", "numpy")
COLUMNS = (
    "",
    "model MiB",
    "vision + projector ms",
    "prefill tokens/s",
    "decode tokens/s",
    "first token ms (p95)",
    "second question ms",
    "load ms",
    "peak memory MiB",
    "first token, times PyTorch {dtype}",
)
INTRODUCTION = """# Measured

Made by `make bench`; [docs/bench.md](../../docs/bench.md) says what each figure is. Medians; every round is in the JSON
files. All rows of a table were measured in one run, their rounds taking turns.
"""
ACCURACY = ("right", "answers that differ from PyTorch")


def write_readme(results: Path, order: Mapping[str, str]) -> Path:
    """README.md of the folder `results`, from every comparison in it; `order` names the first ones."""
    files = sorted(results.glob("*.json"), key=lambda file: (_place(file.stem, order), file.stem))
    read = [(json.loads(file.read_text(encoding="utf-8")), file.name) for file in files]
    sections = [section(found, name) for found, name in read if "bench" in found]
    path = results / "README.md"
    path.write_text("\n".join([INTRODUCTION, *sections]), encoding="utf-8")
    return path


def section(found: dict[str, Any], file: str) -> str:
    """One comparison: workload, table, machine."""
    bench, workload = found["bench"], found["bench"]["workload"]
    accuracy = found["accuracy"]
    reference = reference_of(found)
    dtype = str((reference or {"label": "float32"})["label"]).removeprefix("PyTorch ")
    header = (*(column.format(dtype=dtype) for column in COLUMNS), *(ACCURACY if accuracy else ()))
    name = Path(file).stem
    rows = [(*_figures(engine, reference, name), *_accuracy(engine, accuracy)) for engine in bench["engines"]]
    rows += [(*figures, *("-" for _ in header[len(figures) :])) for figures in peer_lines(found)]
    width, height = workload["image_size"]
    about = (
        f"One image of {width}x{height} ({workload['image_tokens']} tokens), {workload['text_tokens']} text tokens, "
        f"{workload['new_tokens']} new tokens, {workload['threads']} threads, {workload['repeats']} rounds."
    )
    asked = next(iter(accuracy.values()), {"n": 0})["n"]
    if asked:
        about += f" {asked} questions of the inspection test set."
    about += f" {found['remark']}" if "remark" in found else ""
    made_on = f"{_machine(bench['machine'])} [{file}]({file})"
    plot = f"![First token and memory of each engine]({FOLDER}/{name}.png)"
    beside = [part for part in (remarks(found), missing(found), target_table(found)) if part]
    return "\n\n".join([f"## {found['title']}", about, kept.table(header, rows), plot, *beside, f"{made_on}\n"])


def _figures(engine: dict[str, Any], reference: dict[str, Any] | None, comparison: str) -> tuple[str, ...]:
    first = engine["time_to_first_token_ms"]
    return (
        row_name(engine, comparison),
        f"{engine['model_bytes'] / 2**20:.1f}",
        f"{engine['vision_ms']['p50'] + engine['projector_ms']['p50']:.1f}",
        f"{engine['prefill_tokens_per_s']:.0f}",
        f"{engine['decode_tokens_per_s']:.1f}",
        f"{first['p50']:.1f} ({first['p95']:.1f})",
        f"{engine['repeat_question_ttft_ms']['p50']:.1f}",
        f"{engine['load_ms']:.0f}",
        f"{engine['peak_rss_mib']:.0f}",
        f"{reference['time_to_first_token_ms']['p50'] / first['p50']:.2f}" if reference else "-",
    )


def _accuracy(engine: dict[str, Any], accuracy: dict[str, Any]) -> tuple[str, ...]:
    if not accuracy:
        return ()
    if engine["name"] != "edgevlm":
        same = engine["label"] == "PyTorch float32"  # what the bundles are compared with
        return (_percent(next(iter(accuracy.values()))["exact_match"]["reference"]) if same else "-", "-")
    found = next((one for name, one in accuracy.items() if engine["label"].endswith(f"-{name}")), None)
    if found is None:
        return ("-", "-")
    return (_percent(found["exact_match"]["edgevlm"]), f"{found['flips']} ({_percent(found['flip_rate'])})")


def _machine(machine: dict[str, Any]) -> str:
    cpu = machine["processor"]
    features = ", ".join(cpu["features"] or ()) or "not told"
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in SHOWN if name in machine["packages"])
    hardware = f"{cpu['name']}, {cpu['physical_cores']} cores ({features}), {machine['memory_bytes'] / 2**30:.0f} GiB"
    software = f"{machine['platform']}, Python {machine['python']}, {versions}"
    return f"{hardware}; {software}; taken by other programs before: {_percent(machine['busy_before'])}."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _place(name: str, order: Mapping[str, str]) -> int:
    names = list(order)
    return names.index(name) if name in names else len(names)
