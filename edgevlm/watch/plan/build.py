"""A plan made of data: what a TOML file says, or a command's flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.plan.checks import check
from edgevlm.watch.plan.digest import digest
from edgevlm.watch.plan.faults import Fault, Place, UnknownKey, check_keys
from edgevlm.watch.plan.plan import NAME, NAMES, Deadline, Page, Part, Plan, Records, Reload, Reuse
from edgevlm.watch.plan.tables import check_values, located, make, names, table_at, tables_at
from edgevlm.watch.rules import RULES
from edgevlm.watch.rules.base import UNSURE
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import RuntimeOptions, make_options, need
from edgevlm_runtime.registry import Registry

ONCE = ("loading", "source", "trigger", "golden", "verdict", "reuse", "records", "page", "reload")
"""Tables of a plan, written [so]."""
SEVERAL = ("region", "question", "sink")
"""Tables that there may be several of, written [[so]]."""
_KIND_BY_KEY = {"choices": "choice", "schema": "schema", "schema_file": "schema"}
"""Which kind a question without one is, by the keys it has; else "text"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """Keys above all tables: those of `Plan`."""

    name: str = "watch"
    bundle: Path
    system: str | None = None
    at_start: str = "retry"
    before_s: float = 0.0
    waiting: int = 8
    max_frames: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The table [verdict]."""

    order: tuple[str, ...] = ()
    deadline_ms: float | None = None
    default: str = UNSURE

    def __post_init__(self) -> None:
        need(len(set(self.order)) == len(self.order), "order", list(self.order), "every verdict once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Keys that every question has; the others are its rule's."""

    name: str
    text: str
    kind: str
    region: str | None = None

    def __post_init__(self) -> None:
        need(NAME.fullmatch(self.name) is not None, "name", self.name, NAMES)
        need(self.text.strip() != "", "text", self.text, "what is asked")


def build(data: Mapping[str, Any], folder: Path) -> Plan:
    """The plan that `data` says; relative paths are those of `folder`. Raises `Fault`."""
    try:
        return _build(data, folder)
    except UnknownKey as unknown:
        key = unknown.place[-1]
        if len(unknown.place) == 1 or key not in names(Top):
            raise
        raise Fault(unknown.place, "it belongs to the whole plan: write it above the first [table]") from None


def _build(data: Mapping[str, Any], folder: Path) -> Plan:
    check_values(data)
    check_keys((), data, [*names(Top), *ONCE, *SEVERAL])
    top = {key: value for key, value in data.items() if key not in (*ONCE, *SEVERAL)}
    said = make(Top, top, (), folder)
    verdict = make(Verdict, table_at(data, "verdict"), ("verdict",), folder)
    parts = {
        "loading": _loading(table_at(data, "loading"), folder),
        "source": _source(data, folder),
        "trigger": _trigger(data, folder),
        "regions": tuple(make(Region, *one, folder) for one in _each(data, "region")),
        "golden": make(Golden, table_at(data, "golden"), ("golden",), folder) if "golden" in data else None,
        "questions": tuple(_question(*one, folder) for one in _each(data, "question")),
        "order": verdict.order,
        "deadline": _deadline(verdict, data),
        "reuse": make(Reuse, table_at(data, "reuse"), ("reuse",), folder),
        "records": make(Records, table_at(data, "records"), ("records",), folder),
        "sinks": tuple(_part(SINKS, *one, folder) for one in _each(data, "sink")),
        "page": make(Page, table_at(data, "page"), ("page",), folder) if "page" in data else None,
        "reload": make(Reload, table_at(data, "reload"), ("reload",), folder),
    }
    if not parts["questions"]:
        raise Fault((), 'there is no question: add [[question]] with text = "..."')
    try:
        plan = Plan(**{key: getattr(said, key) for key in names(Top)}, **parts)  # type: ignore[arg-type]
    except EdgeVLMError as error:
        raise located(error, top, ()) from None
    check(plan)
    return replace(plan, digest=digest(plan, folder))


def _each(data: Mapping[str, Any], key: str) -> list[tuple[dict[str, Any], Place]]:
    return [(table, (key, number)) for number, table in enumerate(tables_at(data, key))]


def _loading(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Options of `load`, as they were given."""
    place = ("loading",)
    check_keys(place, table, names(RuntimeOptions))
    given = dict(table)
    if isinstance(cache := table.get("image_cache_dir"), str) and cache:
        given["image_cache_dir"] = folder / cache
    try:
        make_options(RuntimeOptions, given, "option")
    except EdgeVLMError as error:
        raise located(error, table, place) from None
    return given


def _source(data: Mapping[str, Any], folder: Path) -> Part:
    if "source" not in data:
        raise Fault((), f"the table [source] is missing: {_kinds(SOURCES)}")
    return _part(SOURCES, table_at(data, "source"), ("source",), folder)


def _trigger(data: Mapping[str, Any], folder: Path) -> Part:
    if "trigger" not in data:
        raise Fault((), f"the table [trigger] is missing: {_kinds(TRIGGERS)}")
    return _part(TRIGGERS, table_at(data, "trigger"), ("trigger",), folder)


def _part(registry: Registry, table: dict[str, Any], place: Place, folder: Path) -> Part:
    kind = table.get("kind")
    if kind is None:
        raise Fault(place, f"the key kind is missing: {_kinds(registry)}")
    options = {key: value for key, value in table.items() if key != "kind"}
    return Part(kind=kind, options=make(_options(registry, kind, place), options, place, folder, ("kind",)))


def _question(table: dict[str, Any], place: Place, folder: Path) -> Question:
    common = {key: value for key, value in table.items() if key in names(Asked)}
    options = {key: value for key, value in table.items() if key not in common}
    by_key = next((kind for key, kind in _KIND_BY_KEY.items() if key in table), "text")
    given = {"name": f"q{int(place[-1]) + 1}", "kind": by_key, **common}
    asked = make(Asked, given, place, folder)
    rule = _options(RULES, asked.kind, place)
    made = make(rule, options, place, folder, tuple(names(Asked)))
    return Question(name=asked.name, text=asked.text, kind=asked.kind, region=asked.region, options=made)


def _options(registry: Registry, kind: Any, place: Place) -> type[Any]:
    """The `Options` of a kind. Raises `Fault` for one that nobody knows."""
    if not isinstance(kind, str) or kind not in registry:
        raise Fault((*place, "kind"), f"there is no such kind: {_kinds(registry)}")
    options: type[Any] = registry.get(kind).Options
    return options


def _kinds(registry: Registry) -> str:
    return f"kinds are {', '.join(registry)}"


def _deadline(verdict: Verdict, data: Mapping[str, Any]) -> Deadline:
    try:
        return Deadline(ms=verdict.deadline_ms, default=verdict.default)
    except EdgeVLMError as error:
        text = str(error).replace("bad value for ms:", "bad value for deadline_ms:")
        raise located(EdgeVLMError(text), data["verdict"], ("verdict",)) from None
