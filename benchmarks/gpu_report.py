"""Results of `benchmarks.gpu` as a Markdown page: one table per model and precision, failures included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import kept

HEADER = (
    "",
    "vision + projector ms",
    "prefill ms",
    "decode tokens/s",
    "first token ms",
    "second question ms",
    "KL to PyTorch float32",
    "same top token",
)


def write_report(file: Path, found: dict[str, Any]) -> Path:
    """The page beside the JSON file; returns where."""
    gpu, packages = found["gpu"], found["machine"]["packages"]
    versions = ", ".join(
        f"{name} {version}"
        for name, version in {**packages, "tensorrt-rtx": found.get("tensorrt-rtx")}.items()
        if name in ("torch", "onnxruntime-gpu", "tensorrt-rtx") and version is not None
    )
    about = f"{gpu['name']}, SM {gpu['sm']}, {gpu['memory_mib']} MiB, CUDA {gpu['cuda']}; {versions}"
    parts = [f"# {gpu['name']}", f"{about}. Medians; every round is in [{file.name}]({file.name})."]
    for model, precisions in found["models"].items():
        parts += [f"## {model}, {precision}\n\n{table(rows)}" for precision, rows in precisions.items()]
    page = file.with_suffix(".md")
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def table(rows: list[dict[str, Any]]) -> str:
    """One row per candidate; an error takes the place of its figures."""
    return kept.table(HEADER, map(_cells, rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "error" in row:
        return (row["name"], f"failed: {row['error'].replace('|', '/')}", *("" for _ in HEADER[2:]))
    medians, numerics = row["medians"], row.get("numerics")
    return (
        row["name"],
        f"{medians['vision_and_projector_ms']:.2f}",
        f"{medians['prefill_ms']:.2f}",
        f"{1e3 / medians['decode_ms_per_token']:.1f}",
        f"{medians['time_to_first_token_ms']:.2f}",
        f"{medians['repeat_question_ttft_ms']:.2f}",
        "-" if numerics is None else f"{numerics['kl_mean']:.2g}",
        "-" if numerics is None else f"{100 * numerics['top1_agreement']:.1f} %",
    )
