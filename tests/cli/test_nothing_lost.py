"""Places are checked before the work, nothing of the user's is written over, and results survive a failed report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from edgevlm_runtime import saving


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    """Two questions about one image."""
    folder = tmp_path_factory.mktemp("questions")
    Image.effect_noise((40, 30), 80).convert("RGB").save(folder / "a.png")
    rows = [{"image": "a.png", "question": question, "answer": "x"} for question in ("What?", "Where?")]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def blocked(tmp_path: Path) -> list[tuple[Path, str]]:
    """Places where no file can be made, and part of what is said."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    return [
        (tmp_path / "mine", "exists"),
        (tmp_path / "folder", "folder"),
        (tmp_path / "mine" / "below", "cannot write"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / ("n" * 300), "cannot write"),
    ]


@pytest.mark.skipif(os.name != "posix", reason="has no such devices")
@pytest.mark.parametrize("option", ["--save", "--report"])
def test_bench_checks_its_places_first(invoke, refused, tmp_path, option):
    """Before the bundle is even looked for."""
    for place, said in blocked(tmp_path):
        result = invoke("bench", tmp_path / "no-bundle", option, place)
        assert result.exit_code == 2
        assert said in result.stderr
        assert "no-bundle" not in result.stderr
    assert (tmp_path / "mine").read_text() == "mine"
    assert "no-bundle" in refused(invoke("bench", tmp_path / "no-bundle", option, tmp_path / "mine", "--force"))


@pytest.mark.skipif(os.name != "posix", reason="has no such devices")
@pytest.mark.parametrize("option", ["--out", "--report"])
def test_eval_checks_its_places_first(invoke, refused, tmp_path, questions, option):
    for place, said in blocked(tmp_path):
        result = invoke("eval", tmp_path / "no-bundle", "--dataset", questions, option, place)
        assert result.exit_code == 2
        assert said in result.stderr
        assert "no-bundle" not in result.stderr
    (tmp_path / "new.answers.jsonl").write_text("hours of answers")
    line = refused(invoke("eval", tmp_path / "no-bundle", "--dataset", questions, option, tmp_path / "new.json"))
    assert "new.answers.jsonl" in line
    assert "--resume" in line
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_data_set_is_not_written_into_somebody_elses_folder(invoke, refused, tmp_path):
    (tmp_path / "questions.jsonl").write_text("mine")
    write = ("eval", "--dataset", "inspection", "--n", 2, "--write", tmp_path)
    assert "not empty" in refused(invoke(*write))
    assert (tmp_path / "questions.jsonl").read_text() == "mine"
    assert invoke(*write, "--force").exit_code == 0
    assert len((tmp_path / "questions.jsonl").read_text().splitlines()) == 2


def test_an_evaluation_survives_its_report(invoke, tiny_bundle, questions, tmp_path, monkeypatch):
    """The folder of --report becomes a file while the bundle answers; every other result is there."""
    monkeypatch.setattr(saving.tempfile, "tempdir", str(tmp_path))
    out, report = tmp_path / "out.json", tmp_path / "pages" / "report.html"

    def page(evaluation: object) -> str:
        report.parent.write_text("in the way")
        return "the page"

    monkeypatch.setattr("edgevlm.evaluation.report.page", page)
    arguments = ("--dataset", questions, "--max-new-tokens", 2, "--out", out, "--report", report, "--json")
    result = invoke("eval", tiny_bundle, *arguments)
    assert result.exit_code == 2
    assert json.loads(result.stdout)["n"] == 2
    assert json.loads(out.read_text())["n"] == 2
    last = result.stderr.splitlines()[-1]
    (kept,) = tmp_path.rglob("report.html")
    assert last.startswith("Error: cannot write")
    assert str(kept) in last
    assert kept.read_text() == "the page"


def test_a_measurement_survives_its_report(invoke, tiny_bundle, tmp_path, monkeypatch):
    def broken(found: object) -> str:
        raise KeyError("a template's mistake")

    monkeypatch.setattr("edgevlm.benchmark.report.page", broken)
    short = ("--repeats", 1, "--warmup", 0, "--new-tokens", 2, "--text-tokens", 16)
    files = ("--save", tmp_path / "saved.json", "--report", tmp_path / "report.html")
    result = invoke("bench", tiny_bundle, *short, *files, "--json")
    assert result.exit_code == 2
    assert "cannot make" in result.stderr.splitlines()[-1]
    shown = json.loads(result.stdout)
    assert json.loads((tmp_path / "saved.json").read_text()) == {k: v for k, v in shown.items() if k != "baseline"}
