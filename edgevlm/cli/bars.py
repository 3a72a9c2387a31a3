"""Progress bars on a terminal, one below the other. Needs rich, which a device does without: see `progress`."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """One bar for each stage on stderr; what is printed meanwhile goes above them."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    @classmethod
    def on_terminal(cls) -> Bars | None:
        """Bars, or None where stderr is no terminal."""
        console = Console(stderr=True, soft_wrap=True)
        return cls(console) if console.is_terminal else None

    def start(self) -> None:
        """Take the end of the screen."""
        self._progress.start()

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of `stage` are behind us."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)
