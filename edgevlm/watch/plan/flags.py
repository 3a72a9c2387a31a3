"""A plan made of a command's flags: a quick start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevlm.watch.plan.build import build
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.plan.words import SINK, TRIGGER, part, source
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError

REGION = "region"
"""Name of the region that a flag gives."""
RECORDS = "jsonl"
"""What `--sink` calls the file of records, which is no sink."""
CORNERS = 4
EVERY_PICTURE = ("pictures", "folder", "video")
"""Sources whose every picture is judged where nobody says which."""
INTERVAL_S = 1.0
"""Between two frames that are judged, where pictures pass by and nobody says when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was given, as it was written; None and () where nothing was."""

    bundle: Path
    source: tuple[str, ...]
    """One word, or several picture files."""
    source_kind: str | None = None
    questions: tuple[str, ...]
    choices: tuple[str | None, ...]
    """Of each question: separated by commas; None for an answer in words."""
    system: str | None = None
    every: float | None = None
    """Seconds."""
    trigger: str | None = None
    """KIND:VALUE."""
    region: str | None = None
    """x0,y0,x1,y1."""
    golden: tuple[Path, ...] = ()
    deadline: float | None = None
    """Milliseconds."""
    default: str | None = None
    sinks: tuple[str, ...] = ()
    """KIND:PLACE each."""
    page: int | None = None
    """Port."""
    max_frames: int | None = None
    name: str | None = None
    loading: dict[str, Any] = field(default_factory=dict)


def plan_of(flags: Flags) -> Plan:
    """The plan that flags make; relative paths are those of the current folder. Raises `EdgeVLMError`."""
    return build(data_of(flags), Path())


def data_of(flags: Flags) -> dict[str, Any]:
    """The same as it would stand in a file."""
    places = [word.partition(":")[2] for word in flags.sinks if word.partition(":")[0] == RECORDS]
    if len(places) > 1 or "" in places:
        raise EdgeVLMError(f"--sink {RECORDS}:FILE: one file of records, and its name, are needed")
    found = source(flags.source, flags.source_kind)
    sinks = [part(SINKS, word, SINK) for word in flags.sinks if word.partition(":")[0] != RECORDS]
    data: dict[str, Any] = {
        "name": flags.name,
        "bundle": str(flags.bundle),
        "system": flags.system,
        "max_frames": flags.max_frames,
        "loading": flags.loading or None,
        "source": found,
        "trigger": _trigger(flags, found["kind"]),
        "region": _region(flags.region),
        "golden": {"images": [str(path) for path in flags.golden]} if flags.golden else None,
        "question": _questions(flags),
        "verdict": _verdict(flags),
        "records": {"file": places[0]} if places else None,
        "sink": sinks or [{"kind": "terminal"}],
        "page": {"port": flags.page} if flags.page is not None else None,
    }
    return {key: value for key, value in data.items() if value is not None}


def grouped(order: Sequence[str], choices: Sequence[str]) -> tuple[str | None, ...]:
    """Which of `choices` belongs to which question; `order`: "question" and "choices" as they came.

    Choices belong to the questions before them that have none yet; the first of all, where they stand before any
    question, to every one that is left without. Raises `EdgeVLMError` for choices that belong to none.
    """
    found: list[str | None] = []
    left = iter(choices)
    general: str | None = None
    for name in order:
        if name == "question":
            found.append(None)
            continue
        given = next(left)
        if not found and general is None:
            general = given
        elif None not in found:
            raise EdgeVLMError(f"--choices {given} belongs to no question: give it after its --question")
        else:
            found = [given if one is None else one for one in found]
    return tuple(general if one is None else one for one in found)


def _questions(flags: Flags) -> list[dict[str, Any]]:
    found = []
    for text, choices in zip(flags.questions, flags.choices, strict=True):
        table: dict[str, Any] = {"text": text}
        if choices is not None:
            table["choices"] = [choice.strip() for choice in choices.split(",")]
        if flags.region is not None:
            table["region"] = REGION
        found.append(table)
    return found


def _trigger(flags: Flags, source_kind: str) -> dict[str, Any]:
    if flags.every is not None and flags.trigger is not None:
        raise EdgeVLMError("--every and --trigger both say which frames are judged: give one of them")
    if flags.trigger is not None:
        return part(TRIGGERS, flags.trigger, TRIGGER)
    if flags.every is not None:
        return part(TRIGGERS, f"interval:{flags.every}", "--every")
    passing = source_kind not in EVERY_PICTURE
    return part(TRIGGERS, f"interval:{INTERVAL_S}" if passing else "every:1", TRIGGER)


def _region(corners: str | None) -> list[dict[str, Any]] | None:
    if corners is None:
        return None
    try:
        box = [float(value) for value in corners.split(",")]
    except ValueError:
        box = []
    if len(box) != CORNERS:
        raise EdgeVLMError(f"--region {corners}: it must be four numbers, LEFT,TOP,RIGHT,BOTTOM")
    return [{"name": REGION, "box": box}]


def _verdict(flags: Flags) -> dict[str, Any] | None:
    if flags.default is not None and flags.deadline is None:
        raise EdgeVLMError("--default is the verdict when a deadline passes: give --deadline MS too")
    found = {"deadline_ms": flags.deadline, "default": flags.default}
    return {key: value for key, value in found.items() if value is not None} or None
