"""`edgevlm replay`: nothing differs with the same bundle; with another one exactly what `edgevlm eval` finds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from edgevlm.watch.records.reading import records
from edgevlm.watch.replay.run import flips
from edgevlm.watch.rules.choice import Options
from edgevlm_export.inspector import checkpoint_path
from edgevlm_runtime import VLM
from tests.support import booked, records
from tests.support.replaying import DEFECT, doubtful, frames, plan_for, watch

COUNT = 48
WORDS = ("dent", "stain", "crack", "scratch", "none")
KIND = Question(name="kind", text="What kind of defect is it?", options=Options(choices=WORDS, at_least=0.0))


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
def watched(tmp_path_factory: pytest.TempPathFactory, int8: Path, vlm: VLM, seen: list[Frame]) -> Path:
    """The folder of a watch that has judged every frame, by int8."""
    folder = tmp_path_factory.mktemp("watch") / "line-1"
    folder.mkdir()
    watch(plan_for(folder, int8, (KIND,)), vlm, seen)
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


def choices_by_eval(bundle: Path, folder: Path) -> dict[str, str]:
    """The likeliest choice of each case, by what `edgevlm eval` stores of its answers."""
    log = folder / f"{bundle.name}.answers.jsonl"
    evaluate(EvalOptions(bundle=bundle, log=log, max_new_tokens=1), load_dataset(str(folder), DatasetOptions()))
    answers = [json.loads(line) for line in log.read_text().splitlines()]
    scores = {answer["case"]: answer["scores"] for answer in answers if "case" in answer}
    return {case: max(given, key=given.__getitem__) for case, given in scores.items()}


def test_the_same_bundle_judges_the_same(invoke, watched: Path, vlm: VLM) -> None:
    result = invoke("replay", watched / "records.jsonl", "--max-flips", 0, "--json")
    found = said(result)
    assert result.exit_code == 0, result.stderr
    assert (found["asked"], found["flips"], found["left_out"], found["inexact"]) == (COUNT, [], {}, 0)
    assert found["largest_change"] < 1e-5
    assert found["bundle_digest"] == vlm.bundle.content_digest == next(records(watched)).bundle
    assert found["last_sha256"] == [list(records(watched))[-1].sha256]


def test_another_bundle_flips_what_eval_finds(
    invoke, watched: Path, int8: Path, int4: Path, seen: list[Frame], tmp_path: Path
) -> None:
    """`eval` asks the same pictures, saved here, without anything of a watch."""
    lines = []
    for frame in seen:
        Image.fromarray(frame.pixels).save(tmp_path / f"{frame.sequence}.png")
        asked = {"image": f"{frame.sequence}.png", "question": KIND.text, "choices": WORDS, "id": str(frame.sequence)}
        lines.append(json.dumps(asked))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    before, after = (choices_by_eval(bundle, tmp_path) for bundle in (int8, int4))
    expected = [
        (int(case), before[case], after[case]) for case in sorted(before, key=int) if before[case] != after[case]
    ]
    assert expected, "two bundles that agree on everything prove nothing"

    found = said(invoke("replay", watched, "--bundle", int4, "--json"))
    assert [(flip["number"], flip["old"], flip["new"]) for flip in found["flips"]] == expected
    assert found["asked"] == COUNT
    first = found["flips"][0]
    assert first["part"] == f"part {first['number']}"
    (change,) = first["answers"]
    assert (change["question"], change["old_answer"], change["new_answer"]) == ("kind", first["old"], first["new"])
    assert 0 < change["old_probability"] < 1

    at_most = len(expected)
    assert invoke("replay", watched, "--bundle", int4, "--max-flips", at_most).exit_code == 0
    result = invoke("replay", watched, "--bundle", int4, "--max-flips", at_most - 1)
    assert result.exit_code == 1
    assert f"{at_most} verdicts differ, at most {at_most - 1} were allowed" in result.stderr
    assert result.stdout.count("differs: record ") == at_most

    plan = stored.find(watched / "records.jsonl", next(records(watched)).plan)
    assert flips(watched / "records.jsonl", edgevlm_runtime.load(int4), plan) == at_most


def test_only_the_newest(invoke, watched: Path, vlm: VLM) -> None:
    assert said(invoke("replay", watched, "--last", 5, "--json"))["asked"] == 5
    plan = stored.find(watched / "records.jsonl", next(records(watched)).plan)
    upside_down = Options(choices=WORDS, at_least=0.0, verdicts={word: f"not {word}" for word in WORDS})
    other = replace(plan, questions=(replace(KIND, options=upside_down),))
    assert flips(watched / "records.jsonl", vlm, other, last=7) == 7


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
        book.use(bundle="b" * 64, plan=next(records(few)).plan)
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
    first, second, third, *_ = records(few)
    marks = Marks(files.marks(few / "records.jsonl"))
    marks.add(about(first, first.verdict))
    marks.add(about(second, "ok" if second.verdict == "reject" else "reject"))
    marks.add(about(third, third.verdict))
    result = invoke("eval", int8, "--dataset", few, "--json")
    assert result.exit_code == 0, result.stderr
    found = said(result)
    assert found["n"] == 3
    assert found["exact_match"]["edgevlm"] == pytest.approx(2 / 3)
    assert list(found["by_question"]) == ["defect"]
