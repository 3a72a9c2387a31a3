"""What a watch does, as data. Frozen, checked when it is made, and equal plans have equal digests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.rules.base import UNSURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A source, trigger or sink: its kind and the options of its file."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """By when there is a verdict in any case."""

    ms: float | None = None
    """Milliseconds from the capture of the frame; None waits as long as it takes."""
    default: str = UNSURE
    """The verdict when that has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """When an unchanged region takes the last answer over."""

    below: float | None = None
    """Largest difference (`frames.change`) that counts as unchanged; None asks every time."""
    at_most: int = 20
    """Times in a row before it is asked again in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Where records are written."""

    file: Path | None = None
    """JSON Lines; None keeps no records."""
    rotate_mb: float = 64.0
    """A file this large is closed, and the next one begun. Closed ones are named after the number of their first record
    (NAME.000000001.jsonl, ...)."""
    keep_mb: float | None = None
    """Closed files are deleted, oldest first, above this; None keeps all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The live page, with /health, /ready and /metrics."""

    port: int = 8750
    host: str = "127.0.0.1"
    token: str | None = None
    """Asked of every request; needed for any host but loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What happens when the bundle or the plan changes on disk."""

    watch: bool = False
    max_flips: int | None = None
    """Ask the frames that were kept again first, and refuse a bundle with more other verdicts; None does not ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A watch. Paths are absolute, or relative to the folder the process runs in."""

    name: str = "watch"
    bundle: Path
    loading: dict[str, Any] = field(default_factory=dict)
    """Fields of `RuntimeOptions`."""
    source: Part
    at_start: str = "retry"
    """What an unreachable source does at the start: "retry" or "fail"."""
    before_s: float = 0.0
    """Seconds of frames kept from before a trigger."""
    trigger: Part
    waiting: int = 8
    """Addressed triggers that may wait for their turn."""
    regions: tuple[Region, ...] = ()
    golden: Golden | None = None
    system: str | None = None
    questions: tuple[Question, ...]
    order: tuple[str, ...] = ()
    """Verdicts from worst to best: the worst that any question gives is the frame's. Without it the first question
    decides alone."""
    deadline: Deadline = field(default_factory=Deadline)
    reuse: Reuse = field(default_factory=Reuse)
    records: Records = field(default_factory=Records)
    sinks: tuple[Part, ...] = ()
    page: Page | None = None
    reload: Reload = field(default_factory=Reload)
    max_frames: int | None = None
    """Stop after this many judged frames."""
    digest: str = ""
    """sha256 of the plan as canonical JSON, passwords and tokens left out."""
