"""The parts that a plan names, found by their kind and made of their options; nothing is touched yet."""

from __future__ import annotations

import os
from pathlib import Path

from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sinks.base import About, Sink
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.sources.base import Source
from edgevlm.watch.status import Status
from edgevlm.watch.triggers import TRIGGERS
from edgevlm.watch.triggers.base import Trigger
from edgevlm_runtime import __version__


def open_source(plan: Plan, status: Status) -> Source:
    """Raises `EdgeVLMError` for a package that is not installed."""
    source: Source = SOURCES.get(plan.source.kind).open_source(plan.source.options, status)
    return source


def make_trigger(plan: Plan, status: Status) -> Trigger:
    """Raises `EdgeVLMError` for a package that is not installed."""
    trigger: Trigger = TRIGGERS.get(plan.trigger.kind).make_trigger(plan.trigger.options, status)
    return trigger


def make_sinks(plan: Plan, verdicts: tuple[str, ...], status: Status) -> dict[str, Sink]:
    """By the names that conditions and counters show: their kind, with a number from the second of a kind on."""
    about = about_watch(plan, verdicts, status)
    sinks: dict[str, Sink] = {}
    for part in plan.sinks:
        alike = sum(name.partition(" ")[0] == part.kind for name in sinks)
        name = f"{part.kind} {alike + 1}" if alike else part.kind
        sinks[name] = SINKS.get(part.kind).make_sink(part.options, about)
    return sinks


def about_watch(plan: Plan, verdicts: tuple[str, ...], status: Status) -> About:
    """What sinks may know."""
    return About(
        name=plan.name,
        verdicts=verdicts,
        questions=tuple(question.name for question in plan.questions),
        folder=state_folder(plan.name),
        status=status,
        version=__version__,
        records=plan.records.file,
    )


def state_folder(name: str) -> Path:
    """Where a watch keeps what must survive a restart: systemd's StateDirectory=, else in $XDG_STATE_HOME, else in
    ~/.local/state. It is made by whoever needs it."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given) / name
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "edgevlm" / "watch" / name
