"""Run a plan until it ends: `edgevlm watch`, in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgevlm.terminal.signals import Told, caught
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.service.notify import Notifier
from edgevlm.watch.service.watch import Watch
from edgevlm_runtime import VLM

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""How often the main thread looks whether it is to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a watch has done, told at its end."""

    ended: str
    """Why it ended: "source" (it has no more pictures), "frames" (as many as the plan says), "stopped"."""
    seconds: float
    """From the start to the end."""
    frames: int
    """Frames the source gave."""
    judged: int
    """Frames judged; those whose region had not changed count too."""
    dropped: int
    """Frames that were to be judged and were replaced by a newer one."""
    skipped: int
    """Parts that asked for a verdict while too many waited, and got the default."""
    late: int
    """Answers that came after the deadline."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """How often each verdict was given in time or by default: what sinks acted on."""
    undelivered: dict[str, int] = field(default_factory=dict)
    """Verdicts that a sink did not take before the end, by the sink's name; sinks that took all are left out."""
    last_record: int = 0
    """Number of the last record; 0 when there is none."""


def run(
    plan: Plan,
    vlm: VLM | Callable[[], VLM],
    *,
    stop: threading.Event | None = None,
    show: Callable[[str], None] = log.info,
    plan_file: Path | None = None,
    read_plan: Callable[[Path], Plan] | None = None,
) -> Summary:
    """Watch until the source ends, `plan.max_frames` are judged, `stop` is set, or SIGTERM or SIGINT comes.

    Then the sinks get what is left, for a bounded time. A second signal ends the process at once. `show` gets lines for
    the person who started it: where the page is, conditions, what was taken over. `plan_file` and `read_plan` are what
    `plan.reload.watch` needs beside the bundle's folder. `vlm` is the plan's bundle, or what loads
    it: then the watch alone holds it, and it leaves memory when another is taken over.

    Raises `EdgeVLMError` for what cannot begin (a question that this bundle cannot answer, a trigger's port that is
    taken, a source that is unreachable where `plan.at_start` is "fail") and for a source that fails for good.
    """
    begun = time.monotonic()
    notifier = Notifier()
    watch = Watch(plan, vlm() if callable(vlm) else vlm)
    try:
        with caught() as told:
            watch.start(show, plan_file, read_plan)
            notifier.ready()
            try:
                ended = _supervise(watch, notifier, stop or threading.Event(), told)
            finally:
                notifier.stopping()
                undelivered = watch.end(show)
    finally:
        watch.close()
    return _summary(watch, ended, time.monotonic() - begun, undelivered)


def _supervise(watch: Watch, notifier: Notifier, stop: threading.Event, told: Told) -> str:
    """Wait for the end; why it came. Raises what a thread has failed with."""
    ping_at = time.monotonic()
    while not watch.finished:
        watch.woken.wait(LOOK_S)
        watch.woken.clear()
        watch.check()
        if stop.is_set() or told.signal is not None:
            return "stopped"
        if notifier.interval is not None and time.monotonic() >= ping_at and watch.health.alive:
            notifier.alive()
            ping_at = time.monotonic() + notifier.interval
    watch.check()
    return "source" if watch.loop.judged != watch.plan.max_frames else "frames"


def _summary(watch: Watch, ended: str, seconds: float, undelivered: dict[str, int]) -> Summary:
    decisions = watch.decisions
    return Summary(
        ended=ended,
        seconds=round(seconds, 3),
        frames=watch.intake.frames,
        judged=watch.loop.judged,
        dropped=watch.jobs.total_dropped,
        skipped=decisions.statuses["skipped"],
        late=decisions.statuses["late"],
        verdicts=dict(decisions.verdicts),
        undelivered=undelivered,
        last_record=watch.book.number,
    )
