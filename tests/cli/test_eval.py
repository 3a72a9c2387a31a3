"""`edgevlm eval` on a tiny bundle and its PyTorch model: JSON contract, report, resuming, gates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm
from tests.support import browser, records
from tests.support.pages import parse

QUESTIONS = ["is there a scratch", "what is in the picture"]
SHORT = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_bundle) -> Path:
    """Four noise images, two questions each; answers are the bundle's own, one of them spoiled, one unknown."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = []
    vlm = edgevlm.load(tiny_bundle)
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        for question in QUESTIONS:
            answer = str(vlm.ask(folder / f"{index}.png", question, max_new_tokens=4)).strip()
            rows.append({"image": f"{index}.png", "question": question, "answer": answer, "kind": question.split()[0]})
    rows[0]["answer"] = "certainly <b>not</b>"
    del rows[1]["answer"]
    rows = [{**row, "choices": ["yes", "no"]} if row["kind"] == "is" else row for row in rows]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> Path:
    """A model that answers otherwise."""
    from tests.support import checkpoints

    return checkpoints.llava(tmp_path_factory.mktemp("other") / "other", decoder="llama-full-heads")


def test_without_a_reference(invoke, tiny_bundle, dataset):
    result = invoke("eval", tiny_bundle, "--dataset", dataset, *SHORT, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("eval", found)
    assert found["n"] == 8
    assert found["exact_match"] == {"edgevlm": pytest.approx(6 / 7), "reference": None}
    assert found["flips"] is found["flip_rate"] is None
    assert found["by_question"]["is"] == {"n": 4, "edgevlm": pytest.approx(3 / 4), "reference": None, "flips": None}
    assert found["by_question"]["what"]["edgevlm"] == 1.0
    assert found["cases"] == []


def test_the_reference_answers_the_same(invoke, tiny_bundle, tiny_checkpoint, dataset, tmp_path):
    out, report = tmp_path / "results.json", tmp_path / "report.html"
    arguments = ("--dataset", dataset, *SHORT, "--reference", tiny_checkpoint, "--out", out, "--report", report)
    result = invoke("eval", tiny_bundle, *arguments, "--max-flip-rate", 0, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("eval", found)
    assert found["exact_match"]["reference"] == found["exact_match"]["edgevlm"]
    assert (found["flips"], found["flip_rate"], found["same_tokens"]) == (0, 0.0, 8)
    assert found["other_checkpoint"] is None
    assert "is not the checkpoint" not in result.stderr
    assert len(json.loads(out.read_text())["cases"]) == 8
    page = parse(report)
    assert page.counts["svg"] == 1
    assert "img" not in page.counts


def test_flips_are_listed_and_shown(invoke, tiny_bundle, other_checkpoint, dataset, tmp_path):
    report = tmp_path / "report.html"
    arguments = ("--dataset", dataset, *SHORT, "--reference", other_checkpoint, "--report", report)
    result = invoke("eval", tiny_bundle, *arguments, "--max-flip-rate", 0.1, "--json")
    assert result.exit_code == 1
    assert "of the answers differ, at most 10.0 %" in result.stderr
    found = json.loads(result.stdout)
    records.check("eval", found)
    assert found["flips"] == len(found["cases"]) > 0
    assert found["flip_rate"] == pytest.approx(found["flips"] / 8)
    flip = found["cases"][0]
    assert flip["edgevlm"] != flip["reference"]
    page = parse(report)
    assert page.counts["img"] == found["flips"], "each flip with its picture"
    text = "".join(page.text)
    assert "certainly <b>not</b>" in text, "answers are text, whatever is in them"
    assert flip["question"] in text
    assert f"{other_checkpoint} is not the checkpoint that this bundle was made from (tiny-llava)" in result.stderr
    assert found["other_checkpoint"] in text
    shown = browser.show(report, tmp_path)
    browser.check(shown)
    (bars,) = shown.sizes["charts"]
    assert len(bars["bars"]) == 2 * 2  # kinds of question, bundle and PyTorch
    assert len(shown.sizes["pictures"]) == found["flips"]
    assert any("PyTorch" in table["text"] for table in shown.sizes["tables"])
    assert browser.coloured(shown, (0x1F, 0x6F, 0xB5)) > 500


def test_resume_asks_only_what_is_missing(invoke, tiny_bundle, dataset, tmp_path):
    out = tmp_path / "results.json"
    arguments = ("eval", tiny_bundle, "--dataset", dataset, *SHORT, "--out", out, "--json")
    whole = json.loads(invoke(*arguments).stdout)
    log = tmp_path / "results.answers.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 8 + 1
    log.write_text("".join(lines[:5]) + lines[5][:20])
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    resumed = invoke(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    again = log.read_text().splitlines(keepends=True)
    assert again[:5] == lines[:5], "answers that were there stay, times and all"
    assert len(again) == len(lines)
    assert again[-1] == lines[-1]
    timeless = [
        {k: v for k, v in json.loads(text).items() if k != "answer_ms"} for text in (json.dumps(whole), resumed.stdout)
    ]
    assert timeless[0] == timeless[1]


def test_another_bundles_answers_are_refused(invoke, refused, tiny_bundle, dataset, tmp_path):
    arguments = ("eval", tiny_bundle, "--dataset", dataset, "--out", tmp_path / "r.json")
    assert invoke(*arguments, *SHORT).exit_code == 0
    line = refused(invoke(*arguments, "--max-new-tokens", 5, "--resume", "--json"))
    assert "max_new_tokens differ" in line


def test_an_image_that_cannot_be_read_is_a_wrong_answer(invoke, tiny_bundle, dataset, tmp_path):
    (tmp_path / "broken.png").write_bytes((dataset / "0.png").read_bytes()[:60])
    (tmp_path / "fine.png").write_bytes((dataset / "1.png").read_bytes())
    (tmp_path / "questions.csv").write_text("image,question,answer\nbroken.png,what,x\nfine.png,what,y\n")
    report = tmp_path / "report.html"
    result = invoke("eval", tiny_bundle, "--dataset", tmp_path, *SHORT, "--report", report, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["errors"] == 1
    assert "broken.png" in "".join(parse(report).text)


def test_both_see_pictures_as_they_are_asked_to(invoke, tiny_bundle, tiny_checkpoint, tmp_path):
    """Turned, or not; 12 bits in 16: the reference answers about the same picture as the bundle."""
    pixels = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=exif)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 16).save(tmp_path / "camera.png")
    rows = [{"image": image, "question": QUESTIONS[0]} for image in ("phone.png", "camera.png")]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    answers = set()
    for number, arguments in enumerate(((), ("--no-exif-orientation",), ("--image-depth", 12))):
        out = tmp_path / f"{number}.json"
        asked = ("--dataset", tmp_path, "--reference", tiny_checkpoint, *SHORT, "--out", out, "--max-flip-rate", 0)
        result = invoke("eval", tiny_bundle, *asked, *arguments)
        assert result.exit_code == 0, result.stderr
        answers.add(json.dumps([case["edgevlm"] for case in json.loads(out.read_text())["cases"]]))
    assert len(answers) > 1


def test_calibration(invoke, refused, tiny_bundle, tmp_path):
    """Fitted on questions whose right answer is the likelier choice three times out of four."""
    import shutil

    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    vlm = edgevlm.load(bundle)
    rows = []
    for index in range(24):
        pixels = np.random.default_rng(100 + index).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        with vlm.session(tmp_path / f"{index}.png") as session:
            probabilities = session.choose("is it", ["yes", "no"]).probabilities
        likely, other = sorted(probabilities, key=probabilities.get, reverse=True)
        answer = likely if index % 4 else other
        rows.append({"image": f"{index}.png", "question": "is it", "answer": answer, "choices": ["yes", "no"]})
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = ("--report", tmp_path / "report.html", "--force")
    arguments = ("eval", bundle, "--dataset", tmp_path, *SHORT, *files, "--json")
    raw = json.loads(invoke(*arguments).stdout)["calibration"]
    fitted = json.loads(invoke(*arguments, "--fit-calibration").stdout)
    records.check("eval", fitted)
    found, file = fitted["calibration"], tmp_path / "bundle.calibration.json"
    assert raw["temperature"] == 1
    assert raw["accuracy"] == found["accuracy"] == pytest.approx(0.75)
    assert found["temperature"] != 1
    assert found["ece_raw"] == pytest.approx(raw["ece"], abs=1e-6)
    assert fitted["calibration_file"] == str(file)
    assert parse(tmp_path / "report.html").counts["svg"] == 2
    shown = browser.show(tmp_path / "report.html", tmp_path)
    browser.check(shown, all_zero=True)
    assert shown.sizes["charts"][1]["points"] > 0, "the reliability plot"
    assert json.loads(invoke(*arguments).stdout)["calibration"]["temperature"] == pytest.approx(found["temperature"])
    image = ("--image", tmp_path / "0.png", "--prompt", "is it", "--choices", "yes,no", "--json")
    assert json.loads(invoke("run", bundle, *image).stdout)["answers"][0]["choice"] in ("yes", "no")
    assert edgevlm.load(bundle).choice_temperature == pytest.approx(found["temperature"])
    file.write_text(file.read_text().replace(json.loads(file.read_text())["bundle"], "0" * 64))
    assert "fitted for another bundle" in refused(invoke("run", bundle, *image))


def test_the_data_set_can_be_saved(invoke, tmp_path):
    result = invoke("eval", "--dataset", "inspection", "--n", 3, "--write", tmp_path / "parts", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"n": 3, "written": str(tmp_path / "parts")}
    records.check("eval", json.loads(result.stdout), record=1)
    assert len((tmp_path / "parts" / "questions.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--n", "0"], "'--n'"),
        (["--match", "fuzzy"], "known are exact, loose"),
        (["--max-new-tokens", "0"], "'--max-new-tokens'"),
        (["--resume"], "--out or --report"),
        (["--max-flip-rate", "0"], "--reference"),
        (["--split", "train"], "no questions of split 'train'"),
        (["--write", "x"], "folder already"),
        (["--fit-calibration", "--n", "1", "--max-new-tokens", "1"], "cannot fit a temperature"),
    ],
)
def test_refused(invoke, tiny_bundle, dataset, arguments, named):
    result = invoke("eval", tiny_bundle, "--dataset", dataset, *arguments)
    assert result.exit_code == 2
    assert named in result.stderr.splitlines()[-1]


def test_no_data_set(invoke, refused, tiny_bundle):
    assert "no such data set: nowhere" in refused(invoke("eval", tiny_bundle, "--dataset", "nowhere"))
    assert "BUNDLE" in refused(invoke("eval", "--dataset", "inspection"))


def test_a_reference_too_large_is_refused_before_anything_is_asked(
    invoke, refused, tiny_bundle, tiny_checkpoint, dataset, monkeypatch
):
    from edgevlm_export.reference import memory

    monkeypatch.setattr(memory, "available", lambda: 1000)
    line = refused(invoke("eval", tiny_bundle, "--dataset", dataset, *SHORT, "--reference", tiny_checkpoint))
    assert "PyTorch needs about" in line


def test_a_minimum_that_does_not_hold(invoke, tiny_bundle, dataset):
    arguments = ("eval", tiny_bundle, "--dataset", dataset, *SHORT)
    assert invoke(*arguments, "--min-exact-match", 0.8).exit_code == 0
    failed = invoke(*arguments, "--min-exact-match", 0.9)
    assert failed.exit_code == 1
    assert "at least 90.0 %" in failed.stderr


def test_nothing_of_the_users_is_lost(invoke, refused, tiny_bundle, dataset, tmp_path):
    """A file that no evaluation has begun is not what --resume goes on with; two results are two files."""
    mine = tmp_path / "mine.json"
    mine.write_text("precious")
    asked = ("eval", tiny_bundle, "--dataset", dataset)
    line = refused(invoke(*asked, "--out", mine, "--resume"))
    assert "file exists" in line
    assert "--resume" not in line
    notes = tmp_path / "z.answers.jsonl"
    notes.write_text("my notes")
    assert "no answers" in refused(invoke(*asked, "--out", tmp_path / "z.json", "--resume"))
    assert (mine.read_text(), notes.read_text()) == ("precious", "my notes")
    begun = ("--out", tmp_path / "a.json", "--max-new-tokens", 1)
    assert invoke(*asked, *begun).exit_code == 0
    for other in (("--report", mine), ("--report", tmp_path / "b.html")):  # of another's, and a new one
        result = invoke(*asked, *begun, *other, "--resume")
        assert result.exit_code == (2 if mine in other else 0), result.stderr
    assert invoke(*asked, *begun, "--report", tmp_path / "b.html", "--resume").exit_code == 0
    assert mine.read_text() == "precious"
    line = refused(invoke(*asked, "--out", tmp_path / "r", "--report", tmp_path / "r"))
    assert "two results for one file" in line
    assert not (tmp_path / "r").exists()
