"""`edgevlm watch` on a real bundle and real pictures: flags, plans, dry runs, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from PIL import Image

import edgevlm
from edgevlm.watch.plan.read import read
from tests.support import plans, records

QUESTION = ("-q", "Is there a scratch?", "--choices", "yes,no")


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(3):
        Image.radial_gradient("L").resize((60 + number, 44)).convert("RGB").save(folder / f"{number}.png")
    return folder


@pytest.fixture
def plan(tmp_path, tiny_bundle, parts):
    """A plan for those pictures, with `more` at its end."""

    def write(more: str = "", question: str = plans.QUESTION):
        source = f"[source]\nkind = 'pictures'\nfiles = {[str(file) for file in sorted(parts.iterdir())]}\n"
        text = plans.plan(top=f"bundle = '{tiny_bundle}'\n", source=source, question=question, more=more)
        return plans.write(tmp_path, text)

    return write


def test_a_quick_start(invoke, tiny_bundle, parts, tmp_path):
    file = tmp_path / "records.jsonl"
    result = invoke("watch", tiny_bundle, f"{parts}/*.png", *QUESTION, "--sink", f"jsonl:{file}")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["frame"]["name"].rpartition("/")[2] for line in lines] == ["0.png", "1.png", "2.png"]
    shown = result.stdout.splitlines()
    assert len(shown) == 3
    assert all(
        line["verdict"] in text and line["frame"]["name"] in text for line, text in zip(lines, shown, strict=True)
    )
    assert "3 of 3 frames judged" in result.stderr
    with edgevlm.load(tiny_bundle).session(parts / "0.png") as session:
        chosen = session.choose("Is there a scratch?", ["yes", "no"])
    assert lines[0]["answers"][0]["probabilities"] == pytest.approx(chosen.probabilities, abs=1e-3)


def test_json_of_a_run(invoke, plan):
    result = invoke("watch", plan("[[sink]]\nkind = 'terminal'\n"), "--max-frames", 2, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    records.check("watch", printed)
    assert (printed["ended"], printed["judged"], sum(printed["verdicts"].values())) == ("frames", 2, 2)


def test_ctrl_c_is_how_it_ends(tiny_bundle, parts):
    """A folder that fills goes on for ever; whoever waits for the summary gets it."""
    command = [sys.executable, "-c", "from edgevlm.cli import main; main()", "watch", tiny_bundle, parts, *QUESTION]
    process = subprocess.Popen(
        [*map(str, command), "--sink", "terminal"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0
    assert b"frames judged in" in said
    assert b"Traceback" not in said


def test_json_of_a_dry_run(invoke, plan):
    file = plan("[verdict]\ndeadline_ms = 60000\n")
    result = invoke("watch", file, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    records.check("watch", printed, 1)
    assert printed["plan"] == str(file)
    assert printed["digest"] == read(file).digest
    assert printed["meets_deadline"] is True


def test_a_plan_that_cannot_meet_its_deadline(invoke, plan):
    file = plan("[verdict]\ndeadline_ms = 0.001\n[records]\nfile = 'r.jsonl'\n")
    result = invoke("watch", file, "--dry-run")
    assert result.exit_code == 1
    assert "deadline 0.001 ms" in result.stdout
    assert "is NOT met" in result.stdout
    assert not (file.parent / "r.jsonl").exists()


def test_init(invoke, refused, tmp_path):
    file = tmp_path / "line.toml"
    result = invoke("watch", "init", file, "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    records.check("watch", printed, 2)
    assert printed == {"plan": str(file)}
    assert read(file).name == "line-1"
    assert "file exists" in refused(invoke("watch", "init", file))


def test_init_without_a_name(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "edgevlm watch watch.toml --dry-run" in invoke("watch", "init").stdout
    assert read(tmp_path / "watch.toml").name == "line-1"


def test_choices_go_with_their_questions(invoke, tiny_bundle, parts):
    asked = ["-q", "Is it a hole?", "--choices", "a,b", "-q", "What is it?"]
    result = invoke("watch", tiny_bundle, parts / "0.png", *asked, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["questions"]
    assert [(one["kind"], one["verdicts"]) for one in found] == [("choice", ["a", "b"]), ("text", [])]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["PLAN", "-q", "x"], "says everything, leave out --question. See: edgevlm watch --help"),
        (["PLAN", "--choices", "a,b"], "leave out --choices"),
        (["PLAN", "--page", "1"], "leave out --page"),
        (["PLAN", "SOURCE"], "is a plan, which says its own source: leave out"),
        (["BUNDLE"], "is a folder, and a plan is a file: give a SOURCE after a bundle"),
        (["BUNDLE", "SOURCE"], "Missing option '--question'"),
        (
            ["BUNDLE", "SOURCE", "-q", "x", "--choices", "a,b", "--choices", "c,d"],
            "--choices c,d belongs to no question",
        ),
        (["init", "x.toml", "--max-frames", "1"], "leave out --max-frames"),
        (["nowhere.toml"], "no such plan: nowhere.toml: edgevlm watch init nowhere.toml writes an example"),
        (["nowhere", "SOURCE", *QUESTION], "no such bundle: nowhere"),
        (["BUNDLE", "nowhere.mp4", *QUESTION], "no such source: 'nowhere.mp4'"),
        (["BUNDLE", "SOURCE", *QUESTION, "--default", "no"], "--default is the verdict when a deadline passes"),
        (["BUNDLE", "SOURCE", *QUESTION, "--threads", "0"], "--threads"),
        (["BUNDLE", "SOURCE", "-q", "x", "--choices", "yes, yes"], "choices"),
    ],
)
def test_refused(invoke, refused, plan, tiny_bundle, parts, words, said):
    places = {"PLAN": plan(), "BUNDLE": tiny_bundle, "SOURCE": parts / "0.png"}
    assert said in refused(invoke("watch", *[places.get(word, word) for word in words]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bundle = ",
        "bundle = 1\n",
        "bundle = 'x'\n" + "a" * 100_000,
        "bundle = 'x'\nbundel = 'y'\n",
        "[" * 10_000,
        "waiting = 1e400\nbundle = 'x'\n",
        "\ufffe",
    ],
)
def test_bad_plans_are_one_line(invoke, refused, tmp_path, text):
    file = plans.write(tmp_path, text)
    assert str(file) in refused(invoke("watch", file))


def test_no_secret_is_shown(invoke, plan, monkeypatch):
    monkeypatch.setenv("LINE_TOKEN", "s3cret-t0ken")
    page = "[page]\ntoken = {env = 'LINE_TOKEN'}\n"
    refusal = invoke("--debug", "watch", plan(page + "port = -1\n"))
    assert refusal.exit_code == 2
    assert "page: port: -1" in refusal.stderr
    result = invoke("--debug", "watch", plan(page), "--dry-run", "--json")
    assert result.exit_code == 0
    assert "s3cret" not in result.output + refusal.output


def test_a_plan_overridden_by_flags(invoke, plan):
    result = invoke("watch", plan("[loading]\nthreads = 2\n"), "--threads", 1, "--max-frames", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["judged"] == 1
