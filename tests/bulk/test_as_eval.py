"""`map` and `eval` on the same drawn parts: the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevlm.bulk.asking import Task
from edgevlm.bulk.run import MapOptions, run
from edgevlm.evaluation.datasets import DatasetOptions, load_dataset
from edgevlm.evaluation.run import EvalOptions, evaluate
from tests.bulk.conftest import lines


@pytest.mark.parametrize("n", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_same_answers(tiny_bundle: Path, tmp_path: Path, n: int) -> None:
    dataset = load_dataset("inspection", DatasetOptions(n=n))
    dataset.write(tmp_path / "parts")  # type: ignore[attr-defined]
    parts = load_dataset(str(tmp_path / "parts"), DatasetOptions())
    theirs = evaluate(EvalOptions(bundle=tiny_bundle, max_new_tokens=4), parts).results
    task = Task(bundle=str(tiny_bundle), max_new_tokens=4)
    given = str(tmp_path / "parts" / "questions.jsonl")
    run(MapOptions(task=task, input=given, output=tmp_path / "out.jsonl", workers=2))
    ours = lines(tmp_path / "out.jsonl")
    assert len(ours) == len(theirs) == n
    answers = {(one.image, one.question): one.edgevlm for one in theirs}
    assert {(str(row["image"]), str(row["question"])): row["answer"] for row in ours} == answers
