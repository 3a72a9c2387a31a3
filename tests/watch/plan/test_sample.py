"""`edgevlm watch init`: a plan that can be read, whose comments say what holds."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden
from edgevlm.watch.plan import sample
from edgevlm.watch.plan.build import ONCE, SEVERAL, Asked, Top, Verdict
from edgevlm.watch.plan.plan import Page, Records, Reload, Reuse
from edgevlm.watch.plan.read import read
from edgevlm.watch.plan.tables import make, names
from edgevlm.watch.rules import RULES
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import RuntimeOptions

TABLES: dict[str, type[Any]] = {
    "": Top,
    "verdict": Verdict,
    "region": Region,
    "golden": Golden,
    "reuse": Reuse,
    "records": Records,
    "page": Page,
    "reload": Reload,
}
"""Tables that are shown whole."""
KINDS = {"source": SOURCES, "trigger": TRIGGERS, "sink": SINKS}
HEADER = re.compile(r"#?\[\[?(\w+)\]\]?( |$)")
KEY = re.compile(r"#?(\w+) = ")


@dataclasses.dataclass
class Block:
    """A table of the sample, or a variant of it that begins with another kind; comments are taken off."""

    table: str
    lines: list[str] = dataclasses.field(default_factory=list)
    defaults: list[str] = dataclasses.field(default_factory=list)
    """Keys that are commented out and not called examples."""

    @property
    def data(self) -> dict[str, Any]:
        return tomllib.loads("\n".join(self.lines))


def blocks() -> Iterator[Block]:
    block = Block("")
    for line in sample.text().splitlines():
        if header := HEADER.match(line):
            yield block
            block = Block(header[1])
        elif key := KEY.match(line):
            if key[1] == "kind" and block.lines:
                yield block
                block = Block(block.table)
            block.lines.append(line.removeprefix("#"))
            if line.startswith("#") and "# example" not in line:
                block.defaults.append(key[1])
    yield block


BLOCKS = list(blocks())


def test_it_is_a_plan(tmp_path):
    file = tmp_path / "line.toml"
    sample.write(file)
    plan = read(file)
    assert plan.name == "line-1"
    assert [question.kind for question in plan.questions] == ["choice"]
    assert f"edgevlm watch {file} --dry-run" in file.read_text()


def test_it_is_not_written_twice(tmp_path):
    file = tmp_path / "line.toml"
    sample.write(file)
    file.write_text("mine")
    with pytest.raises(EdgeVLMError, match=r"file exists: .*line\.toml: choose another name"):
        sample.write(file)
    assert file.read_text() == "mine"


def test_every_table_is_there():
    assert {block.table for block in BLOCKS} == {"", *ONCE, *SEVERAL}


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_there(table):
    (data,) = [block.data for block in BLOCKS if block.table == table]
    assert set(data) == set(names(TABLES[table]))


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("region", "golden")])
def test_what_is_commented_out_is_the_default(table, tmp_path):
    (block,) = [block for block in BLOCKS if block.table == table]
    default = {field.name: field.default for field in dataclasses.fields(TABLES[table])}
    assert {key: block.data[key] for key in block.defaults} == {key: default[key] for key in block.defaults}
    assert block.defaults


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_variant_is_valid(number, tmp_path, monkeypatch):
    for name in ("MQTT_PASSWORD", "CAMERA_PASSWORD", "EDGEVLM_TOKEN"):
        monkeypatch.setenv(name, "x")
    block = BLOCKS[number]
    data, place = dict(block.data), (block.table,)
    if block.table in TABLES:
        make(TABLES[block.table], data, place, tmp_path)
    elif block.table in KINDS:
        make(KINDS[block.table].get(data.pop("kind")).Options, data, place, tmp_path)
    elif block.table == "question":
        own = {key: data.pop(key) for key in names(Asked) if key in data}
        kind = next((kind for key, kind in (("choices", "choice"), ("schema", "schema")) if key in data), "text")
        rule = RULES.get(kind)
        assert own["text"]
        assert rule.make_rule(make(rule.Options, data, place, tmp_path))
    else:
        assert block.table == "loading"
        default = dataclasses.asdict(RuntimeOptions())
        assert {key: data[key] for key in block.defaults} == {key: default[key] for key in block.defaults}
        RuntimeOptions(**data)


def test_every_kind_is_named():
    for table, registry in (("source", SOURCES), ("trigger", TRIGGERS)):
        named = re.search(rf"\[{table}\].*\nkind = \S+ +# (.+)", sample.text())
        assert named
        assert named[1].split(", ") == list(registry)
    assert {block.data["kind"] for block in BLOCKS if block.table == "sink"} == set(SINKS)
