"""Work as a whole: right answers, bad rows, processes that are killed, going on, one writer at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgevlm
from edgevlm.bulk import run as run_module
from edgevlm.bulk.asking import Task
from edgevlm.bulk.processes import Pool
from edgevlm.bulk.run import MapOptions, run
from edgevlm_runtime.disk.locks import exclusive
from edgevlm_runtime.errors import EdgeVLMError
from tests.bulk.conftest import QUESTIONS, lines

Work = Callable[..., MapOptions]
PATIENCE_S = 120


def test_every_picture_and_question_once_and_in_order(work: Work, said: dict[tuple[str, str], str]) -> None:
    report = run(work())
    found = lines(work().output)
    assert {(row["id"], row["question"]): row["answer"] for row in found} == said
    assert [(row["id"], row["question"]) for row in found] == list(said)
    assert all(row["error"] is None and row["tokens"] == 4 and row["milliseconds"] > 0 for row in found)  # type: ignore[operator]
    assert (report.rows, report.taken, report.errors, report.processes, report.threads) == (24, 0, 0, 2, report.threads)
    assert [path.name for path in work().output.parent.iterdir()] == ["out.jsonl"], "nothing else is left"


def test_choices_as_a_session_weighs_them(work: Work, tiny_bundle: Path, pictures: Path) -> None:
    run(work(task=Task(bundle=str(tiny_bundle), choices=("yes", "no")), questions=QUESTIONS[:1], workers=1))
    first = lines(work().output)[0]
    with edgevlm.load(tiny_bundle).session(pictures / "00.png") as session:
        choice = session.choose(QUESTIONS[0], ["yes", "no"])
    assert first["answer"] == choice.best
    assert first["probabilities"] == pytest.approx(choice.probabilities)
    assert first["probability"] == pytest.approx(choice.probabilities[choice.best])


def test_parquet_out(work: Work, tmp_path: Path, said: dict[tuple[str, str], str], tiny_bundle: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    options = work(output=tmp_path / "out.parquet", workers=1)
    run(options)
    rows = parquet.read_table(options.output).to_pylist()
    assert {(row["id"], row["question"]): row["answer"] for row in rows} == said
    chosen = Task(bundle=str(tiny_bundle), choices=("yes", "no"))
    run(work(task=chosen, output=options.output, force=True, workers=1))
    assert sum(
        share for _, share in parquet.read_table(options.output).to_pylist()[0]["probabilities"]
    ) == pytest.approx(1)


def test_bad_rows_are_rows_with_an_error(work: Work, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "in.jsonl"
    (tmp_path / "broken.png").write_bytes((pictures / "00.png").read_bytes()[:60])
    rows = [{"id": "a", "image": "nowhere.png"}, {"id": "b", "image": "broken.png"}, {"id": "c", "image": ""}]
    rows += [{"id": "d", "image": str(pictures / "01.png")}, {"id": "d", "image": str(pictures / "02.png")}]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "{not json\n", encoding="utf-8")
    report = run(work(input=str(table), questions=QUESTIONS[:1]))
    found = lines(work().output)
    assert [row["id"] for row in found] == ["a", "b", "c", "d", "d", "row 6"]
    assert [row["error"] is None for row in found] == [False, False, False, True, False, False]
    assert "nowhere.png" in str(found[0]["error"])
    assert "were there before" in str(found[4]["error"])
    assert (report.rows, report.errors) == (6, 5)


def test_a_schema_gives_data_or_says_that_it_was_cut(work: Work, tiny_bundle: Path) -> None:
    pytest.importorskip("llguidance")
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    run(work(task=Task(bundle=str(tiny_bundle), schema=schema, max_new_tokens=3), workers=1, questions=QUESTIONS[:1]))
    for row in lines(work().output):
        cut = row["value"] is None
        assert ("--max-new-tokens" in str(row["error"])) if cut else row["value"] == json.loads(str(row["answer"]))


def test_no_question_is_an_error_of_the_row(work: Work) -> None:
    run(work(questions=()))
    assert {row["error"] for row in lines(work().output)} == {"no question"}


def test_a_process_that_is_killed_loses_nothing(
    work: Work, said: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []

    class Watched(Pool):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            pools.append(self)

    killed: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        del total
        if stage == "asking" and done >= 5 and not killed:
            killed.extend(pools[0].pids()[:1])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(run_module, "Pool", Watched)
    run(work(), progress)
    assert killed
    found = lines(work().output)
    assert [(row["id"], row["question"]) for row in found] == list(said)
    assert {(row["id"], row["question"]): row["answer"] for row in found} == said


def command(options: MapOptions, *more: object) -> list[str]:
    words: list[object] = ["map", options.task.bundle, options.input, options.output, "--max-new-tokens", 4, *more]
    asked = [word for question in options.questions for word in ("--question", question)]
    return [sys.executable, "-m", "edgevlm", *map(str, [*words, *asked, "--workers", options.workers])]


@pytest.fixture
def slow_input(pictures: Path, tmp_path: Path) -> Iterator[Path]:
    """Many rows, so that a kill comes in the middle."""
    table = tmp_path / "in.csv"
    names = [f"{i},{pictures / f'{i % 12:02}.png'}" for i in range(150)]
    table.write_text("\n".join(["id,image", *names]), encoding="utf-8")
    return table


def test_killed_in_the_middle_and_started_again(work: Work, slow_input: Path, said: dict[tuple[str, str], str]) -> None:
    options = work(input=str(slow_input))
    journal = options.output.with_name("out.jsonl.journal.jsonl")
    with subprocess.Popen(command(options), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + PATIENCE_S
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
            assert time.monotonic() < end
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.01)
        process.kill()
    before = journal.read_bytes()
    assert 20 < before.count(b"\n") < 300
    assert not options.output.exists()
    journal.write_bytes(before[:-7])  # cut in its last line, as by a disk that filled
    refused = subprocess.run(command(options), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    again = subprocess.run(
        command(options, "--resume", "--json"), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["rows"] == 300
    assert 0 < report["taken"] <= before.count(b"\n") - 1
    found = lines(options.output)
    assert [(row["id"], row["question"]) for row in found] == [(str(i), q) for i in range(150) for q in QUESTIONS]
    for row in found:
        assert row["answer"] == said[f"{int(str(row['id'])) % 12:02}.png", str(row["question"])]
    assert not journal.exists()


def test_other_work_is_not_gone_on_with(work: Work, tmp_path: Path) -> None:
    journal = tmp_path / "out.jsonl.journal.jsonl"
    journal.write_text('{"map": 1, "questions": ["else"]}\n', encoding="utf-8")
    with pytest.raises(EdgeVLMError, match="belongs to other work"):
        run(work(resume=True))
    journal.write_text("a diary\n", encoding="utf-8")
    with pytest.raises(EdgeVLMError, match="holds no results"):
        run(work(resume=True))
    assert journal.read_text(encoding="utf-8") == "a diary\n"
    run(work(force=True))
    assert not journal.exists()


def test_errors_are_asked_again_and_answers_are_not(work: Work, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(pictures, folder)
    (folder / "03.png").write_bytes(b"nothing yet")
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        del total
        seen.append(done)
        if stage == "writing":
            raise KeyboardInterrupt

    options = work(input=str(folder), workers=1)
    with pytest.raises(KeyboardInterrupt):
        run(options, stop)
    shutil.copy(pictures / "03.png", folder)
    report = run(work(input=str(folder), workers=1, resume=True))
    assert (report.rows, report.taken, report.errors) == (24, 22, 0)


def test_two_at_one_output(work: Work) -> None:
    output = work().output
    with exclusive(output.with_name(f".{output.name}.lock"), "another"), pytest.raises(EdgeVLMError, match="another"):
        run(work())


def test_what_is_there_is_not_written_over(work: Work) -> None:
    work().output.write_text("precious", encoding="utf-8")
    for options in (work(), work(resume=True)):
        with pytest.raises(EdgeVLMError, match="file exists"):
            run(options)
    assert work().output.read_text(encoding="utf-8") == "precious"
    with pytest.raises(EdgeVLMError, match="kind of output"):
        run(work(output=work().output.with_suffix(".txt")))
