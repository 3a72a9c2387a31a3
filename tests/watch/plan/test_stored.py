"""A plan kept beside its records: the same questions months later, and nothing that is secret."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.frames.regions import Region, load_mask
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.plan import stored
from edgevlm.watch.plan.digest import digest
from edgevlm.watch.plan.plan import Deadline, Page, Part, Plan, Records, Reuse
from edgevlm.watch.rules import choice, schema, text
from edgevlm_runtime.errors import EdgeVLMError


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A source's options."""

    url: str
    password: str | None = None
    tags: frozenset[str] = frozenset()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    here = tmp_path / "plan"
    here.mkdir()
    Image.new("L", (8, 6), 255).save(here / "mask.png")
    Image.new("RGB", (8, 6), "green").save(here / "good.png")
    (here / "schema.json").write_text('{"type": "object"}')
    made = Plan(
        name="line-1",
        bundle=here / "bundle",
        loading={"threads": 2, "image_cache_dir": here / "cache"},
        source=Part(
            kind="rtsp",
            options=Camera(url="rtsp://me:hidden1@cam/1?key=hidden5", password="hidden2", tags=frozenset("ab")),
        ),
        trigger=Part(kind="mqtt", options={"topic": "parts", "broker_token": "hidden3"}),
        regions=(
            Region(name="label", box=(0.1, 0.2, 0.5, 1.0), mask=here / "mask.png"),
            Region(name="rest", polygons=(((0, 0), (4, 0), (4, 5)),)),
        ),
        golden=Golden(images=(here / "good.png",), text="This one is good."),
        system="Answer http://me:word@host as it is.",
        questions=(
            Question(
                name="scratch",
                text="Is there a token?",
                region="label",
                options=choice.Options(choices=("yes", "no"), verdicts={"yes": "reject"}, take_at={"yes": 0.3}),
            ),
            Question(
                name="says",
                kind="text",
                text="What does it say?",
                options=text.Options(patterns=(text.Pattern(match="(?i)ok", verdict="no"),)),
            ),
            Question(
                name="login",
                kind="schema",
                text="Which?",
                options=schema.Options(schema={"type": "object", "properties": {"password": {"type": "string"}}}),
            ),
        ),
        order=("reject", "no"),
        deadline=Deadline(ms=500, default="reject"),
        reuse=Reuse(below=0.1, at_most=3),
        records=Records(file=tmp_path / "records" / "r.jsonl"),
        sinks=(Part(kind="webhook", options={"what": "hook", "headers": {"Cookie": "hidden6"}}),),
        page=Page(host="0.0.0.0", token="hidden4"),
    )
    return replace(made, digest=digest(made, here))


def test_the_same_questions_come_back(plan: Plan) -> None:
    file = plan.records.file
    assert file is not None
    assert not stored.is_kept(file, plan.digest)
    kept = stored.keep(plan, file)
    assert kept == stored.keep(plan, file) == file.with_name(f"r.plan-{plan.digest[:16]}.json")
    assert stored.is_kept(file, plan.digest)
    found = stored.find(file, plan.digest)
    for name in ("name", "bundle", "questions", "order", "system", "deadline", "reuse", "digest"):
        assert getattr(found, name) == getattr(plan, name), name
    assert found.regions[1] == plan.regions[1]
    assert (found.regions[0].box, found.loading["threads"]) == (plan.regions[0].box, 2)
    assert (found.source.kind, found.trigger.options) == ("rtsp", {"topic": "parts"})


def test_nothing_secret_is_written(plan: Plan) -> None:
    assert plan.records.file is not None
    written = stored.keep(plan, plan.records.file).read_text("ascii")
    assert "hidden" not in written
    assert "rtsp://cam/1?..." in written
    assert '"hook"' in written


def test_pictures_are_kept_with_it(plan: Plan, tmp_path: Path) -> None:
    """Masks and golden pictures as they were, also when they are other ones by now, or the records are elsewhere."""
    file = plan.records.file
    assert file is not None
    assert plan.golden is not None
    stored.keep(plan, file)
    for path in (*plan.golden.images, plan.regions[0].mask):
        assert path is not None
        Image.new("RGB", (8, 6), "black").save(path)
    moved = file.parent.rename(tmp_path / "moved") / file.name
    found = stored.find(moved, plan.digest)
    assert found.golden is not None
    assert found.regions[0].mask is not None
    assert np.asarray(Image.open(found.golden.images[0]))[0, 0].tolist() == [0, 128, 0]
    assert not load_mask(found.regions[0].mask).any()
    assert found.golden.text == "This one is good."


def test_what_is_no_plan(plan: Plan) -> None:
    file = plan.records.file
    assert file is not None
    with pytest.raises(EdgeVLMError, match=r"the plan of these records is not there: .*name it with --plan"):
        stored.find(file, plan.digest)
    kept = stored.keep(plan, file)
    data = json.loads(kept.read_text())
    for change, line in (
        ({"format": 2}, "a plan in format 2, this edgevlm knows 1: upgrade it"),
        ({"digest": "0" * 64}, "is another plan than the records name"),
        ({"questions": [{"name": "x"}]}, "not a kept plan"),
        ({"order": 3}, "not a kept plan"),
    ):
        kept.write_text(json.dumps({**data, **change}))
        with pytest.raises(EdgeVLMError, match=line):
            stored.find(file, plan.digest)
