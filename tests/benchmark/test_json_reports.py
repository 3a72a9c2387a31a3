"""What `benchmarks.json_reports` reads out of answers is what was drawn, and what it compares can differ."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgevlm_runtime
from benchmarks import json_reports
from edgevlm_export import inspection
from edgevlm_export.inspection import QUESTIONS
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.text.constraint import Constraint

PARTS = st.integers(0, 101_999_999).map(inspection.part)


@given(PARTS)
def test_every_way_to_say_it_is_read_as_the_same_facts(part):
    record = json_reports.of_json(inspection.RECORDS[0].answer(part))
    assert record == json_reports.of_report(QUESTIONS["report"][0].answer(part))
    kinds = {text.text: text for questions in QUESTIONS.values() for text in questions}
    single = {field: kinds[question].answer(part) for field, question in json_reports.SINGLE.items()}
    assert record == json_reports.of_single(single)
    assert record is not None
    assert (record["colour"], record["code"], record["location"]) == (part.colour, part.code, part.location)


@pytest.mark.parametrize("text", ["", "no defect", "no defect, 2 holes, red part", "[1]", '{"defect": "dent"'])
def test_what_is_neither_record_nor_report_is_none(text):
    assert json_reports.of_json(text) is None
    assert json_reports.of_report(text) is None


def test_one_by_one_steps_through_what_else_runs_together(tiny_checkpoint, export_bundle, monkeypatch):
    vlm = edgevlm_runtime.load(export_bundle(tiny_checkpoint))
    picture = np.zeros((28, 28, 3), np.uint8)
    runs: list[int] = []
    extend, step = Context.extend, Context.step
    monkeypatch.setattr(Context, "extend", lambda self, ids: (runs.append(ids.size), extend(self, ids))[1])
    monkeypatch.setattr(Context, "step", lambda self, token: (runs.append(1), step(self, token))[1])

    def ask(way: str) -> list[int]:
        runs.clear()
        with vlm.session(picture) as session:
            answer = json_reports.WAYS[way](session, "report")
        assert json_reports.FORM.parse(answer.text).keys() == json_reports.SINGLE.keys()
        assert sum(runs) == len(answer.token_ids) - 1  # the last is not fed back
        return list(runs)

    known = Constraint.accept
    assert set(ask("forced tokens one by one")) == {1}
    assert Constraint.accept is known
    together = ask("forced tokens together")
    assert len(together) < sum(together) / 2


def test_rates_are_tokens_a_second(tiny_checkpoint, export_bundle):
    """As the whole time that a record took bounds them."""
    vlm = edgevlm_runtime.load(export_bundle(tiny_checkpoint))
    began = time.perf_counter()
    found = json_reports.speed(vlm, 3)
    spent = time.perf_counter() - began
    assert list(found) == list(json_reports.WAYS)
    for figures in found.values():
        # three answers each; the median answer was no slower than all of the time
        assert figures["tokens_per_second"] > (figures["tokens_per_answer"] - 1) / spent > 0
