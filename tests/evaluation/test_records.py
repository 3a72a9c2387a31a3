"""Marked records as a data set: what is right, what the pictures are, what is left out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm.evaluation.datasets import Case, DatasetOptions, load_dataset
from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.plan import stored
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.records import files
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.marks import Mark, Marks, about
from edgevlm.watch.records.pictures import name
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.rules import choice, text
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import booked
from tests.support.replaying import DEFECT, plan_for

READS = Question(name="reads", kind="text", text="What is written there?", options=text.Options())


def answers(plan: Plan, verdict: str) -> tuple[AnswerInfo, ...]:
    given = {"defect": "yes" if verdict == "reject" else "no", "reads": "L90", "size": "big"}
    return tuple(
        AnswerInfo(question=one.name, text=one.text, verdict=verdict, answer=given[one.name]) for one in plan.questions
    )


def recorded(plan: Plan, verdicts: str, *, pictures: bool = True) -> list[Record]:
    """Records with the verdicts "r" (reject) and "o" (ok), with their pictures and their plan."""
    file = plan.records.file
    assert file is not None
    stored.keep(plan, file)
    given = []
    with Book(plan.records, bundle="b" * 64, plan=plan.digest, status=Status()) as book:
        for letter in verdicts:
            frame = booked.frame(book.number + 1, size=(40, 20))
            verdict = {"r": "reject", "o": "ok"}[letter]
            given.append(book.add(frame, Firing("every"), verdict, answers(plan, verdict)))
            if pictures:
                Image.fromarray(frame.pixels).save(file.parent / name(given[-1].number, verdict, frame.digest))
    return given


def marked(plan: Plan, *marks: Mark) -> None:
    assert plan.records.file is not None
    for mark in marks:
        Marks(files.marks(plan.records.file)).add(mark)


def load(folder: Path, **options: object) -> list[Case]:
    dataset = load_dataset(str(folder), DatasetOptions(**options))  # type: ignore[arg-type]
    cases = list(dataset)
    assert len(dataset) == len(cases)
    return cases


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_for(tmp_path, tmp_path / "bundle")


def test_a_mark_says_what_is_right(plan: Plan, tmp_path: Path) -> None:
    first, second, _, fourth = recorded(plan, "roro")
    marked(plan, about(first, "reject"), about(second, "reject"), about(fourth, "ok"), about(fourth, "reject"))
    cases = load(tmp_path)
    assert [case.answer for case in cases] == ["yes", "yes", "yes"], "of two marks the last"
    assert [case.image_name for case in cases] == ["record 1", "record 2", "record 4"]
    assert {(case.question, case.kind, case.choices) for case in cases} == {(DEFECT.text, "defect", ("yes", "no"))}
    (picture,) = cases[1].images
    assert np.array_equal(np.asarray(picture), booked.frame(2, size=(40, 20)).pixels)
    assert load(tmp_path / "records.jsonl") == cases


def test_the_same_set_has_the_same_name(plan: Plan, tmp_path: Path) -> None:
    first, second = recorded(plan, "ro")
    marked(plan, about(first, "reject"))
    before = load_dataset(str(tmp_path), DatasetOptions()).identity
    assert load_dataset(str(tmp_path), DatasetOptions()).identity == before
    marked(plan, about(second, "reject"))
    assert load_dataset(str(tmp_path), DatasetOptions()).identity != before
    assert load_dataset(str(tmp_path), DatasetOptions(n=1)).identity != before
    assert len(load(tmp_path, n=1)) == 1


def test_what_was_asked_is_asked(tmp_path: Path) -> None:
    """Golden pictures first, the region cut out of both, the golden text before the question."""
    Image.new("RGB", (40, 20), "green").save(tmp_path / "good.png")
    region = Region(name="left", box=(0, 0, 10, 20))
    golden = Golden(images=(tmp_path / "good.png",), text="A good one.")
    plan = plan_for(
        tmp_path, tmp_path / "bundle", (DEFECT, replace(DEFECT, name="size", region="left")), regions=(region,),
        golden=golden, order=("reject", "ok"),
    )  # fmt: skip
    (record,) = recorded(plan, "r")
    given = Mark(number=1, id=record.id, mark="wrong", answers={"size": "no", "defect": "yes"})
    marked(plan, given)
    whole, part = load(tmp_path)
    assert [[image.size for image in case.images] for case in (whole, part)] == [[(40, 20)] * 2, [(10, 20)] * 2]
    assert part.question == f"A good one.\n{DEFECT.text}"
    assert (whole.answer, part.answer) == ("yes", "no")
    assert whole.image_name != part.image_name


def test_a_verdict_that_may_mean_several_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = choice.Options(choices=("yes", "no", "both"), verdicts={"yes": "reject", "both": "reject", "no": "ok"})
    plan = plan_for(tmp_path, tmp_path / "bundle", (replace(DEFECT, options=options), READS))
    first, second = recorded(plan, "or")
    marked(plan, about(first, "reject"), about(second, "ok"))
    with caplog.at_level(logging.WARNING):
        cases = load(tmp_path)
    assert [(case.id[:9], case.kind, case.answer) for case in cases] == [("000000002", "defect", "no")]
    assert "1 marked records are left out: the mark does not say which answer is right" in caplog.text


def test_free_text_that_was_marked_right(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, tmp_path / "bundle", (DEFECT, READS))
    (record,) = recorded(plan, "r")
    marked(plan, about(record, "reject"))
    assert [(case.kind, case.answer, case.choices) for case in load(tmp_path)] == [
        ("defect", "yes", ("yes", "no")),
        ("reads", "L90", ()),
    ]


def test_without_its_picture_or_its_plan(plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = recorded(plan, "ro")
    marked(plan, about(first, "reject"), about(second, "ok"))
    next(tmp_path.glob("000000001-*.png")).unlink()
    with caplog.at_level(logging.WARNING):
        assert [case.id[:9] for case in load(tmp_path)] == ["000000002"]
    assert "1 marked records are left out: no picture was kept" in caplog.text
    next(tmp_path.glob("records.plan-*.json")).unlink()
    with pytest.raises(EdgeVLMError, match=r"no record of .* has a mark, a picture and a known answer"):
        load(tmp_path)


def test_nothing_was_marked(plan: Plan, tmp_path: Path) -> None:
    recorded(plan, "ro")
    with pytest.raises(EdgeVLMError, match=r"no record of .* has a mark"):
        load(tmp_path)
    with pytest.raises(EdgeVLMError, match="records have no splits: leave out --split test"):
        load(tmp_path, split="test")


def test_a_damaged_record_is_named(plan: Plan, tmp_path: Path) -> None:
    first, _ = recorded(plan, "ro")
    marked(plan, about(first, "reject"))
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(EdgeVLMError, match=r"records\.jsonl, line 3: not a record"):
        load(tmp_path)
