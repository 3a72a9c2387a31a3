"""The published comparisons: `make bench`, or

    python -m benchmarks --only inspector
    python -m benchmarks --resume                # what an interrupted run has not finished
    python -m benchmarks --peers all --only clip-l-336-qwen2-0.5b     # beside the peers that were prepared
    python -m benchmarks --only lfm2-vl-450m --export-only            # what needs no quiet machine; --resume measures

For each comparison: export every precision, measure all of them beside PyTorch in one run, ask the inspection
questions where the model knows them. `benchmarks/results/` then has one JSON file per comparison with every round, and
README.md with the tables and plots. Run it on a quiet machine; bundles go to build/benchmarks/ and are removed in the
end. A row is also written there as soon as it is measured (rounds.jsonl).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.comparisons import COMPARISONS, Comparison
from benchmarks.folders import ensure
from benchmarks.peers import PEERS, UnknownPeer, checkpoints, chosen
from benchmarks.peers.base import Measures, Room, default_work
from benchmarks.peers.guests import Party, guests_of
from benchmarks.plots import write_plots
from benchmarks.tables import write_readme
from edgevlm.benchmark.baseline import dump
from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.report import page
from edgevlm.benchmark.run import BenchOptions, bench
from edgevlm.benchmark.workload import Workload
from edgevlm.json_text import plain
from edgevlm.terminal.progress import StageProgress
from edgevlm_runtime import child
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.saving import write_atomic

FLAGS = {
    "int4-prefill-int8": ("--int4", "--prefill", "int8"),
    "int4-widened": (
        *("--int4", "--prefill", "widened"),
        *("--layer", "*_model.layers.*[qkvoe]_proj=int4:nearest", "--layer", "*_model.layers.*.up_proj=int4:nearest"),
    ),
    "int4-fast-nearest": (
        *("--int4-fast", "--layer", "lm_head=int4:block=128,nearest"),
        *("--layer", "*_model.layers.*_proj=int4:block=128,nearest"),
    ),
    "int4-nearest": ("--int4", "--layer", "*_model.layers.*[qkvoep]_proj=int4:nearest"),
    "int4-all-block128": ("--int4", "--layer", "*_model.layers.*_proj=int4:block=128"),
    "int4-all-nearest": ("--int4", "--layer", "*_model.layers.*_proj=int4:block=128,nearest"),
}
"""What `edgevlm export` is told for a precision, where that is not its name."""
HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "benchmarks"


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
    compiled: bool = False
    """PyTorch also compiled."""


@dataclass(frozen=True, slots=True)
class Journal:
    """Every row as it is measured, in a file that a run which is cut off leaves behind."""

    file: Path

    def begin(self) -> None:
        """Mark where a run begins: an earlier one that was cut off stays above."""
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"begun": time.strftime("%Y-%m-%dT%H:%M:%S%z")}) + "\n")

    def note(self, label: str, row: Sample | Measures) -> None:
        """Append a row."""
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"row": label, **asdict(row)}) + "\n")


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
@click.option("--compiled", is_flag=True, help="Also PyTorch compiled by torch.compile; its warm-up takes minutes.")
@click.option("--peers", metavar="all|A,B", help=f"For the shapes, of {', '.join(PEERS)}: those that were prepared.")
@click.option(
    "--peers-work", type=click.Path(path_type=Path, file_okay=False), default=default_work, help="Where they lie."
)
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=HERE / "results")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=WORK, help="Room for bundles.")
@click.option("--keep", is_flag=True, help="Do not remove checkpoints and bundles.")
@click.option("--export-only", is_flag=True, help="Make checkpoints and bundles, and keep them for --resume.")
def main(
    only: tuple[str, ...],
    resume: bool,
    precisions: tuple[str, ...],
    results: Path,
    work: Path,
    keep: bool,
    export_only: bool,
    **settings: Any,
) -> None:
    """Measure the published comparisons and write their tables."""
    unknown = [name for name in only if name not in COMPARISONS]
    if unknown:
        raise click.UsageError(f"no comparison {unknown[0]!r}: there are {', '.join(COMPARISONS)}")
    peers_work: Path = settings.pop("peers_work").resolve()
    try:
        beside = chosen(settings.pop("peers"))
    except UnknownPeer as error:
        raise click.UsageError(str(error)) from error
    results.mkdir(parents=True, exist_ok=True)
    for name in only or [name for name, one in COMPARISONS.items() if not one.large]:
        file = results / f"{name}.json"
        if resume and file.exists():
            click.echo(f"{name}: has results", err=True)
            continue
        room = work / name
        comparison = COMPARISONS[name]
        journal = Journal(room / "rounds.jsonl")
        party = Party(Room(peers_work, comparison.model), beside, journal.note) if beside and comparison.shape else None
        if export_only:
            export(comparison, room, precisions, resume, party, timed=False)
            continue
        measured = compare(comparison, room, Settings(**settings), precisions, resume, journal, party)
        _write(file, {"title": COMPARISONS[name].title, **measured})
        if not keep:
            shutil.rmtree(room)
        write_readme(results, {name: one.title for name, one in COMPARISONS.items()})
        write_plots(results)
    click.echo(results / "README.md")


def compare(
    comparison: Comparison,
    room: Path,
    settings: Settings,
    precisions: Sequence[str],
    resume: bool,
    journal: Journal,
    party: Party | None = None,
) -> dict[str, Any]:
    """Export, measure, ask; bundles stay in `room`."""
    model, exports = export(comparison, room, precisions, resume, party)
    bundles = {precision: _bundle(room, precision) for precision in exports}
    return {
        "settings": asdict(settings),
        "exports": exports,
        "bench": _bench(model, comparison, list(bundles.values()), room / "bench.json", settings, journal, party),
        **({} if party is None else party.results()),
        "accuracy": {}
        if comparison.shape or not settings.questions
        else {p: _evaluate(bundle, model, settings) for p, bundle in bundles.items()},
    }


def export(
    comparison: Comparison,
    room: Path,
    precisions: Sequence[str],
    resume: bool,
    party: Party | None,
    timed: bool = True,
) -> tuple[str, dict[str, Any]]:
    """The model's folder, and of every precision what the export of its bundle took, its time where that is to be
    told: bundles that are there stay when a run is resumed."""
    room.mkdir(parents=True, exist_ok=True)
    if party is not None:
        checkpoints.ensure(party.room)
        model = str(party.room.checkpoint)
    else:
        model = _checkpoint(comparison.model, room) if comparison.shape else comparison.model
    file = room / "exports.json"
    known = json.loads(file.read_text(encoding="utf-8")) if resume and file.exists() else {}
    exports = {}
    for precision in precisions or comparison.precisions:
        bundle = _bundle(room, precision)
        if not (precision in known and bundle.is_dir()):
            known[precision] = _export(model, precision, bundle, comparison.export_options)
            if not timed:
                del known[precision]["seconds"]
            _write(file, known)
        exports[precision] = known[precision]
    return model, exports


def _bundle(room: Path, precision: str) -> Path:
    return room / f"{room.name}-{precision}"


def _checkpoint(shape: str, room: Path) -> str:
    """Make the checkpoint, unless it is there."""
    from benchmarks.shapes import make_checkpoint

    return str(ensure(room / shape, lambda folder: make_checkpoint(folder, shape)))


def _export(model: str, precision: str, bundle: Path, options: Sequence[str]) -> dict[str, Any]:
    flags = FLAGS.get(precision, (f"--{precision}",))
    report = _edgevlm("export", model, *flags, "-o", bundle, "--force", *options, "--json")
    return {name: report[name] for name in ("bytes_total", "seconds", "peak_rss_mib")}


def _bench(
    model: str,
    comparison: Comparison,
    bundles: Sequence[Path],
    file: Path,
    settings: Settings,
    journal: Journal,
    party: Party | None,
) -> dict[str, Any]:
    """In this process, which loads no model: engines and peers have their own."""
    journal.begin()
    try:
        options = BenchOptions(
            bundles=tuple(bundles),
            reference=model,
            reference_dtypes=comparison.reference_dtypes,
            reference_compiled=settings.compiled,
            workload=Workload(
                repeats=settings.repeats,
                warmup=settings.warmup,
                threads=settings.threads,
                text_tokens=settings.text_tokens,
                new_tokens=settings.new_tokens,
                image_size=comparison.image_size,
            ),
        )
        with StageProgress() as progress:
            results = bench(options, progress, guests=guests_of(party), note=journal.note)
    except EdgeVLMError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    write_atomic(file, dump(results))
    write_atomic(file.with_suffix(".html"), page(results))
    return plain(results)


def _evaluate(bundle: Path, model: str, settings: Settings) -> dict[str, Any]:
    found = _edgevlm(
        "eval", bundle, "--dataset", "inspection", "--reference", model, "--n", settings.questions, "--json"
    )
    return {name: found[name] for name in ("n", "exact_match", "flips", "flip_rate")}


def _edgevlm(*arguments: object) -> dict[str, Any]:
    """Run a command in a process of its own; its JSON. Leaves with the command's own error."""
    click.echo(f"edgevlm {' '.join(map(str, arguments))}", err=True)
    with child.start(["-m", "edgevlm", *arguments], stdout=subprocess.PIPE) as process:
        stdout, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(stdout)
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    write_atomic(file, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
