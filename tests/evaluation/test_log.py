"""Answers on disk: a killed run goes on where it was, another evaluation's answers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevlm.evaluation.answerers import Given
from edgevlm.evaluation.log import DONE, AnswerLog
from edgevlm_runtime.errors import EdgeVLMError

HEADER = {"evaluation": 1, "bundle": "abc", "reference": None}
FIRST, SECOND = Given("1", "yes", (4, 5), 1.5, {"yes": -0.1, "no": -2.5}), Given("2", error="not an image")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log that was interrupted after two answers, in the middle of a third."""
    with AnswerLog(tmp_path / "log.jsonl", HEADER) as log:
        log.add("edgevlm", FIRST)
        log.add("edgevlm", SECOND)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"engine": "edgevlm", "case": "3", "te')
    return tmp_path / "log.jsonl"


def test_resume(path: Path) -> None:
    with AnswerLog(path, HEADER, resume=True) as log:
        assert log.answers == {"edgevlm": {"1": FIRST, "2": SECOND}}
        assert log.has("edgevlm", "2")
        assert not log.has("edgevlm", "3")
        assert not log.has("reference", "1")
        log.add("reference", FIRST)
        log.finish()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    assert lines[-1] == DONE
    with AnswerLog(path, HEADER, resume=True) as log:
        assert log.answers == {"edgevlm": {"1": FIRST, "2": SECOND}, "reference": {"1": FIRST}}


def test_an_unfinished_one_is_not_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(EdgeVLMError, match="continue it with --resume"):
        AnswerLog(path, HEADER)
    assert path.read_bytes() == before


def test_a_finished_one_is(path: Path) -> None:
    with AnswerLog(path, HEADER, resume=True) as log:
        log.finish()
    with AnswerLog(path, HEADER) as log:
        assert log.answers == {}
    assert len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("other", [{"bundle": "xyz"}, {"reference": "inspector"}])
def test_another_evaluation(path: Path, other: dict) -> None:
    with pytest.raises(EdgeVLMError, match=f"belongs to another evaluation \\({next(iter(other))} differ"):
        AnswerLog(path, {**HEADER, **other}, resume=True)


def test_logs_that_name_no_engine_are_onnxruntimes(path: Path) -> None:
    """Those of before there was a choice."""
    with AnswerLog(path, {**HEADER, "engine": "ort"}, resume=True) as log:
        assert log.has("edgevlm", "2")
    with pytest.raises(EdgeVLMError, match=r"\(engine differ\)"):
        AnswerLog(path, {**HEADER, "engine": "tensorrt"}, resume=True)


def test_force_replaces_whatever_is_there(path: Path) -> None:
    with AnswerLog(path, HEADER, anew=True) as log:
        assert log.answers == {}
    assert len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("content", ["my notes without a newline", "{", json.dumps(HEADER) + " "])
def test_what_is_no_log_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    if content == "{":  # a log whose first line was cut off begins so
        AnswerLog(path, HEADER, resume=True).__exit__(None, None, None)
        return
    with pytest.raises(EdgeVLMError, match="holds no answers of an evaluation"):
        AnswerLog(path, HEADER, resume=True)
    assert path.read_text() == content


def test_no_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("these are notes\n")
    with pytest.raises(EdgeVLMError, match="holds no answers"):
        AnswerLog(path, HEADER, resume=True)
    with AnswerLog(None, HEADER) as log:
        log.add("edgevlm", FIRST)
        assert log.has("edgevlm", "1")
