"""What a watch does, as data. Frozen, checked when it is made, and equal plans have equal digests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.rules.base import UNSURE
from edgevlm.web.loopback import is_loopback
from edgevlm_runtime.options import is_real, need

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAMES = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
"""What a name may be: it becomes part of topics, file names and metrics."""
LONGEST_BEFORE_S = 600.0
MOST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A source, trigger or sink: its kind and the options of its file."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """By when there is a verdict in any case."""

    ms: float | None = None
    """Milliseconds from the capture of the frame, or from the request for a verdict where that came before; None waits
    as long as it takes."""
    default: str = UNSURE
    """The verdict when that has passed."""

    def __post_init__(self) -> None:
        need(self.ms is None or _positive(self.ms), "ms", self.ms, "a number of milliseconds above 0")
        need(self.default != "", "default", self.default, "a verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """When an unchanged region takes the last answer over."""

    below: float | None = None
    """Largest difference (`frames.change`) that counts as unchanged; None asks every time."""
    at_most: int = 20
    """Times in a row before it is asked again in any case."""

    def __post_init__(self) -> None:
        sound = self.below is None or (is_real(self.below) and 0 <= self.below <= 1)
        need(sound, "below", self.below, "a share from 0 to 1")
        need(self.at_most >= 1, "at_most", self.at_most, "a whole number of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Where records are written."""

    file: Path | None = None
    """JSON Lines; None keeps no records."""
    rotate_mb: float = 64.0
    """A file this large is closed, and the next one begun. Closed ones are named after the number of their first record
    (NAME.000000001.jsonl, ...)."""
    keep_mb: float | None = None
    """Closed files are deleted, oldest first, above this, all but the newest; None keeps all."""

    def __post_init__(self) -> None:
        need(_positive(self.rotate_mb), "rotate_mb", self.rotate_mb, "a number of megabytes above 0")
        sound = self.keep_mb is None or _positive(self.keep_mb)
        need(sound, "keep_mb", self.keep_mb, "a number of megabytes above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The live page, with /health, /ready and /metrics."""

    port: int = 8750
    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    """Asked of every request; needed for any host but loopback."""

    def __post_init__(self) -> None:
        need(0 <= self.port <= MOST_PORT, "port", self.port, f"from 1 to {MOST_PORT}, or 0 for any that is free")
        need(self.host.strip() != "", "host", self.host, "an address of this machine, as 127.0.0.1")
        sound = self.token is None or (self.token != "" and self.token.isascii() and self.token.isprintable())
        need(sound, "token", "***", "text of printable ASCII characters")
        open_to_all = self.token is None and not is_loopback(self.host)
        need(not open_to_all, "host", self.host, "a loopback address, as 127.0.0.1, unless a token is set")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What happens when the bundle or the plan changes on disk."""

    watch: bool = False
    max_flips: int | None = None
    """Ask the frames that were kept again first, and refuse a bundle with more other verdicts; None does not ask."""

    def __post_init__(self) -> None:
        sound = self.max_flips is None or self.max_flips >= 0
        need(sound, "max_flips", self.max_flips, "a whole number, 0 or more")


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

    def __post_init__(self) -> None:
        need(NAME.fullmatch(self.name) is not None, "name", self.name, NAMES)
        need(self.at_start in ("retry", "fail"), "at_start", self.at_start, '"retry" or "fail"')
        held = is_real(self.before_s) and 0 <= self.before_s <= LONGEST_BEFORE_S
        need(held, "before_s", self.before_s, f"seconds from 0 to {LONGEST_BEFORE_S:g}: they are kept in memory")
        need(self.waiting >= 1, "waiting", self.waiting, "a whole number of at least 1")
        limited = self.max_frames is None or self.max_frames >= 1
        need(limited, "max_frames", self.max_frames, "a whole number of at least 1")
        need(len(self.questions) > 0, "questions", self.questions, "at least one")


def _positive(value: object) -> bool:
    return is_real(value) and value > 0  # type: ignore[operator]
