"""`edgevlm map`: rows in, every question asked by several processes or a cluster, a row for each answer out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevlm.bulk import writers
from edgevlm.bulk.asking import Task
from edgevlm.bulk.journal import Header, Journal
from edgevlm.bulk.processes import Pool
from edgevlm.bulk.readers import Columns, Reader, read
from edgevlm.bulk.rows import Ask, Result, Row, asks_of, slots_of_row, together
from edgevlm.bulk.shares import Shares, shares
from edgevlm_runtime.disk.locks import exclusive
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.saving import check_file

if TYPE_CHECKING:
    from edgevlm_runtime.bundle.folder import Bundle

Progress = Callable[[str, int, int], None]
"""Told the stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """What is asked, about what, and where answers go."""

    task: Task
    input: str
    output: Path
    questions: tuple[str, ...] = ()
    """Asked about every row that has none of its own."""
    columns: Columns = field(default_factory=Columns)
    workers: int | None = None
    """Processes; None decides by cores and memory."""
    resume: bool = False
    force: bool = False
    """Replace what is there."""
    ray: str | None = None
    """Address of a Ray cluster, or "local"; None uses processes of our own."""


@dataclass(frozen=True, slots=True)
class MapReport:
    """What was asked, and how long it took."""

    bundle: str
    """The folder, as it was given."""
    input: str
    """As it was given."""
    output: str
    """As it was given."""
    rows: int
    """Rows of the output: one for each picture and question."""
    taken: int
    """Of these, answers that were there already, with `--resume`."""
    errors: int
    """Of these, rows with an error in place of an answer."""
    processes: int
    """Processes that asked."""
    threads: int
    """Threads of each."""
    seconds: float
    """From the first row to the complete output."""


def run(options: MapOptions, progress: Progress = lambda *_: None) -> MapReport:
    """Ask everything that is not answered yet, then write the output.

    Raises `EdgeVLMError` for an input or output that cannot be used, for output that is there, and for a bundle that
    does not load; what was answered before stays in the journal beside the output.
    """
    from edgevlm_runtime.bundle.folder import Bundle

    writers.check(options.output)
    reader = read(options.input, options.columns)
    bundle = Bundle.open(options.task.bundle)
    # the files were checked now: processes of this machine need not do it again
    checked = replace(options.task, loading={**options.task.loading, "verify": "size"})
    divided = shares(options.workers, options.task.loading, _bytes(bundle))
    start = time.perf_counter()
    with _held(options.output):
        journal = _check_places(options)
        with Journal(journal, _header(options, bundle), options.resume) as kept:
            if options.ray is None:
                _by_processes(checked, reader, kept, options, divided, progress)
            else:
                divided = _by_ray(reader, kept, options, progress)
            progress("writing", 0, 1)
            rows = writers.write(options.output, kept.results())
            progress("writing", 1, 1)
        journal.unlink()
    return MapReport(
        bundle=options.task.bundle,
        input=options.input,
        output=str(options.output),
        rows=rows,
        taken=kept.taken,
        errors=kept.errors,
        processes=divided.processes,
        threads=divided.threads,
        seconds=round(time.perf_counter() - start, 3),
    )


def _by_processes(
    task: Task, reader: Reader, kept: Journal, options: MapOptions, divided: Shares, progress: Progress
) -> None:
    total = _slots(reader, options)
    read_so_far = 0

    def pending(row: Row) -> list[Ask]:
        nonlocal read_so_far
        asks = asks_of(row, options.questions)
        read_so_far += len(asks)
        return kept.pending(asks, row.error)

    groups = together(reader.rows(), pending)
    task = replace(task, loading={**task.loading, "threads": divided.threads})
    pool = Pool(task, groups, divided.processes)
    with closing(pool):
        _keep(iter(pool), kept, progress, lambda: total or read_so_far)


def _by_ray(reader: Reader, kept: Journal, options: MapOptions, progress: Progress) -> Shares:
    from edgevlm.bulk import cluster

    pending, total = cluster.Pending(options.questions), 0
    for row in reader.rows():
        asks = asks_of(row, options.questions)
        total += len(asks)
        pending.add(kept.pending(asks, row.error))
    work = cluster.Work(reader, options.questions, options.task)
    with cluster.connected(options.ray or "local", options.workers, options.task) as divided:
        if pending:
            _keep(cluster.results(work, pending, divided), kept, progress, lambda: total)
    return divided


def _keep(results: Iterator[Result], kept: Journal, progress: Progress, total: Callable[[], int]) -> None:
    progress("asking", kept.done, total())
    for result in results:
        kept.add(result)
        progress("asking", kept.done, max(total(), kept.done))
    progress("asking", kept.done, kept.done)


def _slots(reader: Reader, options: MapOptions) -> int:
    """How many answers there will be; 0 where nobody knows."""
    rows = reader.total()
    return 0 if rows is None else rows * slots_of_row(options.questions)


def _check_places(options: MapOptions) -> Path:
    """Nothing is written over unasked. Returns where the journal is."""
    journal = options.output.with_name(f"{options.output.name}.journal.jsonl")
    begun = options.resume and journal.exists()
    if journal.exists() and not (options.resume or options.force):
        raise EdgeVLMError(f"unfinished work is there: {journal}: go on with --resume, or replace it with --force")
    check_file(options.output, options.force or begun)
    return journal


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Raises `EdgeVLMError` while another process writes the same output."""
    check_file(output, force=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(output.with_name(f".{output.name}.lock"), "edgevlm map"):
            yield
    except BlockingIOError as error:
        raise EdgeVLMError(f"another edgevlm map writes {output}: wait for it, or choose another output") from error


def _header(options: MapOptions, bundle: Bundle) -> Header:
    """What answers depend on."""
    task: dict[str, Any] = asdict(options.task)
    loading = {name: value for name, value in task.pop("loading").items() if name != "threads"}
    del task["bundle"]
    return {
        "map": 1,
        "bundle": bundle.content_digest,
        "input": options.input,
        "questions": list(options.questions),
        "columns": asdict(options.columns),
        **task,
        "choices": list(options.task.choices),
        "loading": {name: str(value) for name, value in loading.items()},
    }


def _bytes(bundle: Bundle) -> int:
    return sum(record.bytes for record in bundle.manifest.files.values())
