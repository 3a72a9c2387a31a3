"""The builder's own progress, as the command line's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevlm_export.planning.plan import Progress  # which imports torch


def make_monitor(module: Any, progress: Progress, stage: str) -> Any:
    """An `IProgressMonitor` that tells `progress` how many steps of the outermost phase are behind us.

    Phases nest, and only the outermost one's number of steps is known when it begins: inner ones are not shown. An
    interrupt (Ctrl-C) cannot be raised through the library: it is remembered in `interrupted`, the build ends at the
    next step.
    """

    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.outermost: tuple[str, int] | None = None
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Called by the library."""
            if parent_phase is None:
                self.outermost = (phase_name, num_steps)
                self._tell(0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Called by the library; False ends the build."""
            if self.outermost is not None and phase_name == self.outermost[0]:
                self._tell(step + 1)
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            """Called by the library."""
            if self.outermost is not None and phase_name == self.outermost[0]:
                self._tell(self.outermost[1])

        def _tell(self, done: int) -> None:
            assert self.outermost is not None
            try:
                progress(stage, min(done, self.outermost[1]), self.outermost[1])
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()
