"""Whatever stands in a plan: a `Plan`, or one line that names the file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm.watch.plan.build import ONCE, SEVERAL, Asked, Top, Verdict
from edgevlm.watch.plan.plan import Page, Plan, Records, Reload, Reuse
from edgevlm.watch.plan.read import read
from edgevlm.watch.plan.tables import names
from edgevlm.watch.rules import RULES
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import RuntimeOptions
from tests.support import plans

KINDS = {"source": SOURCES, "trigger": TRIGGERS, "sink": SINKS, "question": RULES}


def keys(table: str) -> list[str]:
    """Keys that mean something there, of every kind."""
    fixed: dict[str, list[str]] = {
        "": names(Top),
        "verdict": names(Verdict),
        "reuse": names(Reuse),
        "records": names(Records),
        "page": names(Page),
        "reload": names(Reload),
        "loading": names(RuntimeOptions),
        "region": ["name", "box", "mask", "polygons"],
        "golden": ["images", "text"],
        "question": names(Asked),
    }
    found = fixed.get(table, ["kind"])
    if table in KINDS:
        found = [
            *found,
            *(one.name for kind in KINDS[table] for one in dataclasses.fields(KINDS[table].get(kind).Options)),
        ]
    return list(dict.fromkeys(found))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=20)
WORDS = st.sampled_from(
    ["", "a", "yes", "video", "rtsp", "choice", "rim", "plan.toml", "../x", "0.0.0.0", "a" * 5000, *KINDS]
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(width=32),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, 5e-324, float("nan"), float("inf"), True, False]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(TEXTS, WORDS, NUMBERS, st.just("1979-05-27T07:32:00Z")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
TABLES = ["", *ONCE, *SEVERAL]
CHANGES = st.lists(
    st.sampled_from(TABLES).flatmap(
        lambda table: st.tuples(st.just(table), st.one_of(*[st.sampled_from(keys(table))] * 4, TEXTS), VALUES)
    ),
    min_size=1,
    max_size=3,
)


def toml(value: Any) -> str:
    """A value as TOML; text that is a date is written as one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if value.startswith("1979-") else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


def written(tables: dict[str, Any]) -> str:
    """A plan as TOML: every table on a line of its own."""
    lines = [f"{toml(key)} = {toml(value)}" for key, value in tables[""].items()]
    for name, value in tables.items():
        lines += [f"{toml(name)} = {toml([value] if name in SEVERAL else value)}"] if name else []
    return "\n".join(lines)


def outcome(text: str) -> Plan | str:
    """The plan, or the line that refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        file = plans.write(Path(folder), text)
        try:
            return read(file)
        except EdgeVLMError as error:
            said = str(error)
        assert str(file) in said
        return said


@settings(max_examples=300)
@given(CHANGES)
def test_wrong_values_and_unknown_keys(changes):
    tables: dict[str, Any] = {
        "": {"bundle": "x"},
        "source": {"kind": "video", "path": "a"},
        "trigger": {"kind": "every"},
        "question": {"text": "Is it?", "choices": ["yes", "no"]},
    }
    for table, key, value in changes:
        tables.setdefault(table, {})[key] = value
    found = outcome(written(tables))
    assert isinstance(found, Plan) or ("\n" not in found and len(found) < 2000)


@given(st.integers(0, len(plans.PLAN)))
def test_cut_short(end):
    found = outcome(plans.PLAN[:end])
    assert isinstance(found, Plan) or "\n" not in found


@given(st.integers(0, len(plans.PLAN) - 1), st.characters(codec="utf-8"))
def test_one_character_is_another(place, character):
    found = outcome(plans.PLAN[:place] + character + plans.PLAN[place + 1 :])
    assert isinstance(found, Plan) or "\n" not in found


@given(st.binary(max_size=200))
def test_any_bytes(data):
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EdgeVLMError):
        file = Path(folder, "plan.toml")
        file.write_bytes(data)
        read(file)
