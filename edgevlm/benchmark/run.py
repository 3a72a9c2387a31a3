"""Measure: start an engine's process each, ask them in turn, put the figures together."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from edgevlm.benchmark.engines import imports_of
from edgevlm.benchmark.engines.base import Sample, Spec
from edgevlm.benchmark.meters import busy_share
from edgevlm.benchmark.process import EngineProcess, import_cpu_ms
from edgevlm.benchmark.results import REFERENCE, EngineResult, Machine, Results, Sustained, compare, summarize
from edgevlm.benchmark.sustained import intervals
from edgevlm.benchmark.workload import Facts, Task, Workload, prepare
from edgevlm.machine import memory, package_versions, processor
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.errors import EdgeVLMError

Progress = Callable[[str, int, int], None]
"""Told the stage's name, how much of it is done, and how much there is."""

SETTLE_S = 0.05
"""Between two engines' turns: the threads of the one before may still be waiting busily."""
DTYPES = ("float32", "bfloat16", "float16")
_import_cpu_ms = cache(import_cpu_ms)


class Guest(Protocol):
    """An engine of somebody else's, which takes turns with ours and keeps its own figures. It warms up at each turn."""

    def turn(self) -> None:
        """One round."""
        ...


Note = Callable[[str, Sample], None]
"""Told every row as it is measured, and whose it is, so that a run that is cut off leaves what it has found."""
Guests = Callable[[Task, Bundle], Sequence[Guest]]
"""Who else takes turns, given what our engines are asked and the first bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured. Raises `EdgeVLMError` for values that mean nothing."""

    bundles: tuple[Path, ...]
    reference: str | None = None
    """Alias, folder or id of the PyTorch model to measure too."""
    reference_dtypes: tuple[str, ...] = ("float32",)
    reference_compiled: bool = False
    """Measure it a second time, compiled by torch.compile."""
    workload: Workload = field(default_factory=Workload)
    minutes: float = 0.0
    """Of the sustained run of each engine; 0 for none."""
    one_at_a_time: bool = False
    """One engine in memory at a time, instead of all with their rounds in turn."""

    def __post_init__(self) -> None:
        if not self.bundles:
            raise EdgeVLMError("nothing to measure: give a bundle")
        if not 0 <= self.minutes < math.inf:
            raise EdgeVLMError(f"bad value for minutes: {self.minutes}: it must be a number, 0 or more")
        for dtype in self.reference_dtypes:
            if dtype not in DTYPES:
                raise EdgeVLMError(f"unknown dtype of the reference: {dtype}: known are {', '.join(DTYPES)}")


@dataclass(slots=True)
class _Measured:
    """What is known of one engine so far."""

    process: EngineProcess
    rows: list[Sample] = field(default_factory=list)
    tokens: tuple[int, ...] = ()
    sustained: Sustained | None = None
    peak_rss_mib: float = 0.0


def bench(
    options: BenchOptions,
    progress: Progress = lambda *_: None,
    accept: Callable[[Facts], None] = lambda _: None,
    guests: Guests = lambda *_: (),
    note: Note = lambda *_: None,
) -> Results:
    """Measure every engine. `accept` sees the workload before anything is measured, and may raise. Guests take turns
    with the engines of the last group; `note` is told the engines' rows as they come.

    Raises what loading a bundle or the reference raises, and `EdgeVLMError` from engines.
    """
    machine = describe_machine()
    # Also reads every file, so that all engines find theirs in the operating system's cache.
    bundles = [Bundle.open(path) for path in options.bundles]
    with tempfile.TemporaryDirectory(prefix="edgevlm-bench-") as folder:
        task, facts = prepare(options.workload, bundles[0], Path(folder))
        accept(facts)
        *groups, last = _groups(_specs(options), options.one_at_a_time)
        measured = [one for group in groups for one in _measure(group, task, options, progress, note)]
        measured += _measure(last, task, options, progress, note, guests(task, bundles[0]))
    reference = next((one for one in measured if _is_reference(one)), None)
    engines = tuple(_result(one, reference) for one in measured)
    return Results(machine, facts, engines, compare(engines))


def describe_machine() -> Machine:
    """Processor, memory, system, packages; and how busy it was before, for figures measured on a busy machine lie."""
    versions = {name: version for name, version in package_versions().items() if version is not None}
    return Machine(
        processor=processor(),
        memory_bytes=memory().total,
        platform=platform.platform(),
        python=platform.python_version(),
        packages=versions,
        busy_before=busy_share(),
    )


def _specs(options: BenchOptions) -> list[Spec]:
    folders = [path.resolve() for path in options.bundles]
    names = [path.name for path in folders]
    specs = [
        Spec("edgevlm", str(path), None, path.name if names.count(path.name) == 1 else str(path)) for path in folders
    ]
    if len({spec.label for spec in specs}) < len(specs):
        raise EdgeVLMError("the same bundle twice: name each one once")
    if options.reference is not None:
        specs += [
            Spec(engine, options.reference, dtype, f"PyTorch {dtype}{suffix}")
            for engine, suffix in (("pytorch", ""), ("pytorch_compiled", " compiled"))
            for dtype in dict.fromkeys(options.reference_dtypes)
            if engine == "pytorch" or options.reference_compiled
        ]
    return specs


def _groups(specs: Sequence[Spec], one_at_a_time: bool) -> list[list[Spec]]:
    return [[spec] for spec in specs] if one_at_a_time else [list(specs)]


def _measure(
    specs: Sequence[Spec],
    task: Task,
    options: BenchOptions,
    progress: Progress,
    note: Note,
    guests: Sequence[Guest] = (),
) -> list[_Measured]:
    """The engines of one group, in memory together; only one works at a time."""
    with ExitStack() as stack:
        measured: list[_Measured] = []
        for spec in specs:
            progress(f"loading {spec.label}", 0, 1)
            measured.append(_Measured(stack.enter_context(EngineProcess(spec, task))))
            progress(f"loading {spec.label}", 1, 1)
        _rounds(measured, guests, options.workload, progress, note)
        for one in measured:
            if options.minutes:
                one.sustained = _sustain(one.process, options.minutes, progress)
            one.peak_rss_mib = one.process.end()
    return measured


def _rounds(
    measured: Sequence[_Measured], guests: Sequence[Guest], workload: Workload, progress: Progress, note: Note
) -> None:
    """Rounds in turn, there and back, so that a machine that slows down slows all of them."""
    players: list[_Measured | Guest] = [*measured, *guests]
    stage = "measuring" if len(players) > 1 else f"measuring {measured[0].process.spec.label}"
    total = workload.warmup + workload.repeats
    for number in range(total):
        progress(stage, number, total)
        for one in players if number % 2 == 0 else reversed(players):
            time.sleep(SETTLE_S if len(players) > 1 else 0)
            _take_turn(one, number >= workload.warmup, bool(guests), note)
    progress(stage, total, total)


def _take_turn(one: _Measured | Guest, keep: bool, warm: bool, note: Note) -> None:
    """A guest is not asked in rounds that are not kept: its turns have warm-ups of their own. Beside guests an engine
    has one as well (`warm`): while they load their models, the system takes the pages of its mapped weights away."""
    if isinstance(one, _Measured):
        if keep and warm:
            one.process.ask()
        sample, one.tokens = one.process.ask()
        if keep:
            one.rows.append(sample)
            note(one.process.spec.label, sample)
    elif keep:
        one.turn()


def _sustain(process: EngineProcess, minutes: float, progress: Progress) -> Sustained:
    stage, seconds = f"sustained run of {process.spec.label}", minutes * 60
    progress(stage, 0, round(seconds))
    rounds = []
    for one in process.sustain(seconds):
        rounds.append(one)
        progress(stage, min(round(one["at_s"]), round(seconds)), round(seconds))
    found = intervals(rounds, seconds)
    return Sustained(minutes, found, round(found[-1].rounds_per_minute / found[0].rounds_per_minute, 4))


def _is_reference(one: _Measured) -> bool:
    return (one.process.spec.engine, one.process.loaded["precision"]) == REFERENCE


def _result(one: _Measured, reference: _Measured | None) -> EngineResult:
    spec, loaded = one.process.spec, one.process.loaded
    return EngineResult(
        label=spec.label,
        name=spec.engine,
        precision=loaded["precision"],
        source=Path(spec.source).name,
        model_bytes=loaded["model_bytes"],
        import_cpu_ms=round(_import_cpu_ms(imports_of(spec.engine, one.process.task)), 2),
        load_ms=round(loaded["load_ms"], 3),
        rss_loaded_mib=round(loaded["rss_mib"], 2),
        peak_rss_mib=round(one.peak_rss_mib, 2),
        tokens_like_reference=None if reference is None else _common(one.tokens, reference.tokens),
        sustained=one.sustained,
        **summarize(one.rows),
    )


def _common(tokens: Sequence[int], others: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    pairs = zip(tokens, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(tokens), len(others)))
