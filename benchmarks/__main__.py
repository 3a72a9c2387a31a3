"""The published comparisons: `make bench`, or

    python -m benchmarks --only inspector
    python -m benchmarks --resume                # what an interrupted run has not finished

For each comparison: export every precision, measure all of them beside PyTorch in one run, ask the inspection
questions where the model knows them. `benchmarks/results/` then holds one JSON file a comparison with every round, and
README.md with the tables. Run it on a quiet machine; bundles go to build/benchmarks/ and are removed in the end.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.tables import write_readme

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "benchmarks"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model in several precisions, beside PyTorch."""

    title: str
    model: str
    """Alias or folder; or, with `shape`, the name of a shape of `benchmarks.shapes`."""
    precisions: tuple[str, ...] = ("fp32", "int8", "int4")
    shape: bool = False
    """Random weights: nothing is said about answers, and parity is not checked when exporting."""
    export_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    repeats: int = 10
    warmup: int = 2
    text_tokens: int = 32
    new_tokens: int = 32
    questions: int = 500
    """Of the inspection data set, for models that know it; 0 for none."""
    threads: int | None = None


COMPARISONS: dict[str, Comparison] = {
    "inspector": Comparison("`inspector`, the model that ships (about 2 million parameters)", "inspector"),
    "clip-l-336-qwen2-0.5b": Comparison(
        "CLIP-L/336 + Qwen2-0.5B shape, random weights",
        "clip-l-336-qwen2-0.5b",
        shape=True,
        export_options=("--no-self-test", "--no-certificate"),
    ),
    "smolvlm-256m": Comparison(
        "SmolVLM-256M shape, random weights, one tile of 512x512",
        "smolvlm-256m",
        shape=True,
        export_options=("--no-self-test", "--no-certificate"),
    ),
}


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help=f"One of {', '.join(COMPARISONS)}; may repeat.")
@click.option("--resume", is_flag=True, help="Leave out comparisons that have results, keep bundles that are there.")
@click.option("--precision", "precisions", multiple=True, metavar="P", help="Instead of a comparison's own.")
@click.option("--repeats", type=int, default=10, show_default=True)
@click.option("--warmup", type=int, default=2, show_default=True)
@click.option("--text-tokens", type=int, default=32, show_default=True)
@click.option("--new-tokens", type=int, default=32, show_default=True)
@click.option("--questions", type=int, default=500, show_default=True, help="Inspection questions; 0 for none.")
@click.option("--threads", type=int, help="Default: the physical cores.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=HERE / "results")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=WORK, help="Room for bundles.")
@click.option("--keep", is_flag=True, help="Do not remove checkpoints and bundles.")
def main(
    only: tuple[str, ...],
    resume: bool,
    precisions: tuple[str, ...],
    results: Path,
    work: Path,
    keep: bool,
    **settings: Any,
) -> None:
    """Measure the published comparisons and write their tables."""
    unknown = [name for name in only if name not in COMPARISONS]
    if unknown:
        raise click.UsageError(f"no comparison {unknown[0]!r}: there are {', '.join(COMPARISONS)}")
    results.mkdir(parents=True, exist_ok=True)
    for name in only or COMPARISONS:
        file = results / f"{name}.json"
        if resume and file.exists():
            click.echo(f"{name}: has results", err=True)
            continue
        room = work / name
        measured = compare(COMPARISONS[name], room, Settings(**settings), precisions, resume)
        _write(file, {"title": COMPARISONS[name].title, **measured})
        if not keep:
            shutil.rmtree(room)
        write_readme(results, {name: one.title for name, one in COMPARISONS.items()})
    click.echo(results / "README.md")


def compare(
    comparison: Comparison, room: Path, settings: Settings, precisions: Sequence[str], resume: bool
) -> dict[str, Any]:
    """Export, measure, ask; bundles stay in `room`."""
    room.mkdir(parents=True, exist_ok=True)
    model = _checkpoint(comparison.model, room) if comparison.shape else comparison.model
    bundles = {p: room / f"{room.name}-{p}" for p in precisions or comparison.precisions}
    exports = {
        precision: _export(model, precision, bundle, comparison.export_options)
        for precision, bundle in bundles.items()
        if not (resume and bundle.is_dir())
    }
    return {
        "settings": asdict(settings),
        "exports": exports,
        "bench": _bench(model, list(bundles.values()), room / "bench.json", settings),
        "accuracy": {}
        if comparison.shape or not settings.questions
        else {p: _evaluate(bundle, model, settings) for p, bundle in bundles.items()},
    }


def _checkpoint(shape: str, room: Path) -> str:
    """Make the checkpoint, unless it is there."""
    from benchmarks.shapes import make_checkpoint

    folder = room / shape
    if not folder.exists():
        partial = room / f".{shape}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        make_checkpoint(partial, shape)
        partial.rename(folder)
    return str(folder)


def _export(model: str, precision: str, bundle: Path, options: Sequence[str]) -> dict[str, Any]:
    report = _edgevlm("export", model, f"--{precision}", "-o", bundle, "--force", *options, "--json")
    return {name: report[name] for name in ("bytes_total", "seconds", "peak_rss_mib")}


def _bench(model: str, bundles: Sequence[Path], file: Path, settings: Settings) -> dict[str, Any]:
    threads = () if settings.threads is None else ("--threads", settings.threads)
    _edgevlm(
        *("bench", *bundles, "--reference", model, "--reference-dtype", "float32", "--reference-dtype", "bfloat16"),
        *("--repeats", settings.repeats, "--warmup", settings.warmup, *threads),
        *("--text-tokens", settings.text_tokens, "--new-tokens", settings.new_tokens),
        *("--save", file, "--report", file.with_suffix(".html"), "--json"),
    )
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _evaluate(bundle: Path, model: str, settings: Settings) -> dict[str, Any]:
    found = _edgevlm(
        "eval", bundle, "--dataset", "inspection", "--reference", model, "--n", settings.questions, "--json"
    )
    return {name: found[name] for name in ("n", "exact_match", "flips", "flip_rate")}


def _edgevlm(*arguments: object) -> dict[str, Any]:
    """Run a command in a process of its own; its JSON. Leaves with the command's own error."""
    command = [sys.executable, "-m", "edgevlm", *map(str, arguments)]
    click.echo(f"edgevlm {' '.join(command[3:])}", err=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, encoding="utf-8")
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


if __name__ == "__main__":
    main()
