"""Progress of long work on stderr: bars on a terminal where rich is installed, one plain line per stage elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from edgevlm.terminal.output import note

Show = Callable[[str, int, int], None]


class StageProgress:
    """Shows `(stage, done, total)` as it is told; stages may come in any order and go on side by side."""

    def __init__(self) -> None:
        self._announced: set[str] = set()
        self._show: Show = self._announce
        self._stop: Callable[[], None] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of `stage` are behind us."""
        self._show(stage, done, total)

    def __enter__(self) -> Self:
        bars = _bars()
        if bars is not None:
            self._show, self._stop = bars
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop is not None:
            self._stop()

    def _announce(self, stage: str, done: int, total: int) -> None:
        del done, total  # a log has no use for every step
        if stage not in self._announced:
            self._announced.add(stage)
            note(stage)


def _bars() -> tuple[Show, Callable[[], None]] | None:
    """Start bars, one for each stage: what moves them, and what ends them. None where they cannot be drawn."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:  # a device has no rich
        return None
    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress, tasks = Progress(*columns, console=console), dict[str, TaskID]()

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.update(tasks[stage], completed=done, total=total)

    progress.start()
    return show, progress.stop
