"""`edgevlm replay`: nothing differs with the same bundle; with another one exactly what `edgevlm eval` finds."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm.evaluation.datasets import DatasetOptions, load_dataset
from edgevlm.evaluation.run import EvalOptions, evaluate
from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.plan import stored
from edgevlm.watch.plan.plan import Reuse
from edgevlm.watch.records import files
from edgevlm.watch.records.marks import Marks, about
from edgevlm.watch.records.reading import records as read
from edgevlm.watch.replay.run import flips
from edgevlm.watch.rules import text
from edgevlm.watch.rules.choice import Options
from edgevlm_export.inspector import checkpoint_path
from edgevlm_runtime import VLM
from tests.support import booked, records
from tests.support.replaying import DEFECT, doubtful, frames, plan_for, watch

Probabilities: TypeAlias = "tuple[dict[int, tuple[str, float]], dict[int, tuple[str, float]]]"
COUNT = 32
TEXT = "Which code is on the label?"
CODES = ("L90", "F01", "A12", "K55", "M37", "T08")
SAYS = Question(name="says", kind="text", text=TEXT, options=text.Options(max_new_tokens=1, verdict=False))
"""`edgevlm eval` lets a model answer before it weighs the choices, and what int8 computes depends, in the second digit,
on how much of the prompt is there already."""
GAP = 1e-3
"""Probabilities that are nearer to a border are not reliably on one side of it."""


@pytest.fixture(scope="session")
def int8(export_bundle) -> Path:
    return export_bundle(checkpoint_path(), precision="int8")


@pytest.fixture(scope="session")
def int4(export_bundle) -> Path:
    return export_bundle(checkpoint_path(), precision="int4")


@pytest.fixture(scope="session")
def vlm(int8: Path) -> VLM:
    return edgevlm_runtime.load(int8)


@pytest.fixture(scope="session")
def seen() -> list[Frame]:
    return frames(doubtful(COUNT))


@pytest.fixture(scope="session")
def by_eval(tmp_path_factory: pytest.TempPathFactory, int8: Path, int4: Path, seen: list[Frame]) -> Probabilities:
    """What `edgevlm eval` finds about the same pictures, saved here, without anything of a watch: for int8 and for int4
    the likeliest choice of each frame, and its probability."""
    folder, lines = tmp_path_factory.mktemp("eval"), []
    for frame in seen:
        Image.fromarray(frame.pixels).save(folder / f"{frame.sequence}.png")
        name = str(frame.sequence)
        lines.append(json.dumps({"image": f"{name}.png", "question": TEXT, "choices": CODES, "id": name}))
    (folder / "questions.jsonl").write_text("\n".join(lines))
    found = []
    for precision, bundle in (("int8", int8), ("int4", int4)):
        log = folder / f"{precision}.answers.jsonl"
        evaluate(EvalOptions(bundle=bundle, log=log, max_new_tokens=1), load_dataset(str(folder), DatasetOptions()))
        answers = [json.loads(line) for line in log.read_text().splitlines()]
        scores = {int(answer["case"]): answer["scores"] for answer in answers if "case" in answer}
        found.append({number: likeliest(scores[number]) for number in sorted(scores)})
    return found[0], found[1]


def likeliest(scores: dict[str, float]) -> tuple[str, float]:
    best = max(scores, key=scores.__getitem__)
    return best, 1 / sum(math.exp(score - scores[best]) for score in scores.values())


def flipped(by_eval: Probabilities, at_least: float) -> list[tuple[int, str, str]]:
    """Frames whose verdict is another by int4, where an answer that is less sure than `at_least` is "unsure"."""
    before, after = (
        {number: choice if sure >= at_least else "unsure" for number, (choice, sure) in one.items()} for one in by_eval
    )
    return [(number, before[number], after[number]) for number in before if before[number] != after[number]]


@pytest.fixture(scope="session")
def question(by_eval: Probabilities) -> Question:
    """With the border at which most verdicts flip, and no probability near it: some do, whatever the machine."""
    sure = sorted(sure for one in by_eval for _, sure in one.values())
    borders = [(low + high) / 2 for low, high in pairwise(sure) if high - low > 2 * GAP]
    border = max(borders, key=lambda at_least: len(flipped(by_eval, at_least)))
    return Question(name="code", text=TEXT, options=Options(choices=CODES, at_least=border))


@pytest.fixture(scope="session")
def watched(
    tmp_path_factory: pytest.TempPathFactory, int8: Path, vlm: VLM, seen: list[Frame], question: Question
) -> Path:
    """The folder of a watch that has judged every frame, by int8."""
    folder = tmp_path_factory.mktemp("watch") / "line-1"
    folder.mkdir()
    watch(plan_for(folder, int8, (SAYS, question)), vlm, seen)
    return folder


@pytest.fixture
def few(tmp_path: Path, int8: Path, vlm: VLM, seen: list[Frame]) -> Path:
    """A small one, to be changed."""
    watch(plan_for(tmp_path, int8), vlm, seen[:6])
    return tmp_path


def said(result: Any) -> dict[str, Any]:
    assert result.stdout, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    records.check("replay", found)
    return found


def test_the_same_bundle_judges_the_same(invoke, watched: Path, vlm: VLM) -> None:
    result = invoke("replay", watched / "records.jsonl", "--max-flips", 0, "--json")
    found = said(result)
    assert result.exit_code == 0, result.stderr
    assert (found["asked"], found["flips"], found["left_out"], found["inexact"]) == (COUNT, [], {}, 0)
    assert found["largest_change"] < 1e-5
    assert found["bundle_digest"] == vlm.bundle.content_digest == next(read(watched)).bundle
    assert found["last_sha256"] == [list(read(watched))[-1].sha256]


def test_another_bundle_flips_what_eval_finds(
    invoke, watched: Path, int4: Path, by_eval: Probabilities, question: Question
) -> None:
    expected = flipped(by_eval, question.options.at_least)
    assert expected, "two bundles that agree on everything prove nothing"
    most = len(expected)
    result = invoke("replay", watched, "--bundle", int4, "--max-flips", most - 1, "--json")
    assert result.exit_code == 1
    assert f"{most} verdicts differ, at most {most - 1} were allowed" in result.stderr
    found = said(result)
    assert [(flip["number"], flip["old"], flip["new"]) for flip in found["flips"]] == expected
    assert (found["asked"], found["passed"]) == (COUNT, False)
    for flip in found["flips"]:
        (change,) = flip["answers"]
        assert flip["part"] == f"part {flip['number']}"
        assert (change["question"], change["old"], change["new"]) == ("code", flip["old"], flip["new"])
        for one, side in zip(by_eval, ("old", "new"), strict=True):
            assert change[f"{side}_answer"] == one[flip["number"]][0]
            assert change[f"{side}_probability"] == pytest.approx(one[flip["number"]][1], abs=1e-4)

    result = invoke("replay", watched, "--bundle", int4, "--max-flips", most)
    assert result.exit_code == 0
    assert result.stdout.count("differs: record ") == most


def test_what_a_reload_asks(watched: Path, int4: Path, by_eval: Probabilities, question: Question, vlm: VLM) -> None:
    """`flips`: of the newest that can be asked, by the plan that is given."""
    file = watched / "records.jsonl"
    plan = stored.find(file, next(read(watched)).plan)
    expected = [number for number, _, _ in flipped(by_eval, question.options.at_least) if number > COUNT - 10]
    assert flips(file, edgevlm_runtime.load(int4), plan, last=10) == len(expected)
    other = {word: f"not {word}" for word in CODES}
    options = Options(choices=CODES, at_least=0.0, verdicts=other)
    assert flips(file, vlm, replace(plan, questions=(SAYS, replace(question, options=options))), last=7) == 7


def test_regions_golden_pictures_and_several_questions(invoke, tmp_path: Path, int8: Path, vlm: VLM, seen) -> None:
    Image.fromarray(seen[0].pixels).save(tmp_path / "good.png")
    Image.fromarray(np.where(np.indices((96, 96))[0] < 30, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")
    questions = (DEFECT, replace(DEFECT, name="below", region="below"))
    regions = (Region(name="below", box=(0, 0.25, 1, 1), mask=tmp_path / "mask.png"),)
    golden = Golden(images=(tmp_path / "good.png",), text="The first picture is a good part.")
    plan = plan_for(
        tmp_path, int8, questions, regions=regions, golden=golden, order=("reject", "ok"), reuse=Reuse(below=0.001)
    )
    watch(plan, vlm, [*seen[:5], replace(seen[4], sequence=6)])
    for name in ("good.png", "mask.png"):
        (tmp_path / name).unlink()  # what was kept beside the records is enough
    found = said(invoke("replay", tmp_path, "--json"))
    assert (found["asked"], found["flips"]) == (5, [])
    assert found["left_out"] == {"the answer was taken over from an earlier frame": 1}


def test_what_cannot_be_asked_is_counted(invoke, few: Path) -> None:
    with booked.book(few / "records.jsonl") as book:
        booked.add(book, 200)  # by a plan that nobody kept
    with booked.book(few / "records.jsonl") as book:
        book.use(bundle="b" * 64, plan=next(read(few)).plan)
        book.add(booked.frame(201), booked.Firing("every"), "unsure", status="default")
    kept = sorted((few / "kept").glob("*.png"))
    kept[0].unlink()
    Image.new("RGB", (96, 96)).save(kept[1])
    picture = Image.open(kept[2])
    picture.load()
    kept[2].unlink()
    picture.save(kept[2].with_suffix(".jpg"), quality=95)
    result = invoke("replay", few, "--json")
    found = said(result)
    assert result.exit_code == 0
    assert found["left_out"] == {
        "no picture was kept": 1,
        "the picture was altered": 1,
        "the plan was not kept": 1,
        "no answer was given in time": 1,
    }
    assert (found["found"], found["asked"], found["inexact"]) == (8, 4, 1)
    assert "not exact: 1 asked with pictures kept as JPEG" in invoke("replay", few).stdout


def test_pictures_that_are_elsewhere(invoke, refused, few: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(few / "kept", elsewhere / "kept")
    line = refused(invoke("replay", few), begun=True)
    assert "no record could be asked again: 6 because no picture was kept: name a folder" in line
    assert said(invoke("replay", few, "--pictures", elsewhere, "--json"))["asked"] == 6


def test_a_plan_of_ones_own(invoke, refused, few: Path) -> None:
    for kept in few.glob("records.plan-*"):
        kept.unlink()
    assert "no plan was kept beside" in refused(invoke("replay", few))


def test_the_chain_alone_needs_no_bundle(invoke, few: Path) -> None:
    file = few / "records.jsonl"
    result = invoke("replay", file, "--check")
    assert result.exit_code == 0
    assert "records 1 to 6: 6, whole" in result.stdout
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1].replace(b'"trigger":"every"', b'"trigger":"other"'), *lines[4:]]))
    result = invoke("replay", file, "--check", "--json")
    assert result.exit_code == 1
    found = said(result)
    assert not found["passed"]
    assert (found["bundle"], found["found"]) == (None, 4)
    altered, missing = found["problems"]
    assert altered == f"{file}, line 2: record 2 was altered"
    assert missing == f"{file}, line 3: before it, records 3 to 4 are missing"
    assert f"Does not hold: {altered}" in result.stderr
    result = invoke("replay", file, "--json")
    assert result.exit_code == 1, "asking again does not hide it"
    assert said(result)["asked"] == 3
    assert said(result)["left_out"] == {"the line is not a record, or was altered": 1}


@pytest.mark.parametrize(
    ("name", "line"), [("nothing.jsonl", "no such records: "), ("empty", "there are no records in ")]
)
def test_where_there_are_no_records(invoke, refused, tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "empty").mkdir()
    assert line in refused(invoke("replay", tmp_path / name))


def test_marked_records_are_a_data_set(invoke, few: Path, int8: Path) -> None:
    """What a person says decides what is right: here, that two of three verdicts were."""
    first, second, third, *_ = read(few)
    marks = Marks(files.marks(few / "records.jsonl"))
    marks.add(about(first, first.verdict))
    marks.add(about(second, "ok" if second.verdict == "reject" else "reject"))
    marks.add(about(third, third.verdict))
    result = invoke("eval", int8, "--dataset", few, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["n"] == 3
    assert found["exact_match"]["edgevlm"] == pytest.approx(2 / 3)
    assert list(found["by_question"]) == ["defect"]
