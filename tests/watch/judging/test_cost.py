"""What a frame costs, measured."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm.watch.frames.change import difference, signature
from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.cost import drawn_frame, measure
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.plan.plan import Reuse
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.judging import SCRATCH, plan, question

RUNS = 3


def test_frames_that_are_drawn_are_unlike_each_other() -> None:
    drawn = np.random.default_rng(1)
    frames = [drawn_frame(drawn, (100, 70)).pixels for _ in range(5)]
    assert {frame.shape for frame in frames} == {(70, 100, 3)}
    signatures = [signature(frame) for frame in frames]
    assert min(difference(a, b) for i, a in enumerate(signatures) for b in signatures[:i]) > 0.2


def test_cost_counts_each_kind_of_frame(inspector: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, ...]] = []
    judge = Judge.judge

    def told(self: Judge, frame: object) -> object:
        judgement = judge(self, frame)  # type: ignore[arg-type]
        seen.append(tuple(answer.reused for answer in judgement.answers))
        return judgement

    monkeypatch.setattr(Judge, "judge", told)
    left = Region(name="left", box=(0.0, 0.0, 0.5, 1.0))
    asked = [question(SCRATCH, name=str(number), region="left" if number == 2 else None) for number in range(4)]
    cost = measure(inspector, plan(*asked, regions=(left,), reuse=Reuse(below=0.05)), (120, 90), RUNS)
    assert (cost.width, cost.height, cost.runs) == (120, 90, RUNS)
    assert seen == [(False,) * 4, (True,) * 4] * (RUNS + 1)
    assert cost.further is not None
    assert 0 < cost.unchanged.median < cost.fresh.median <= cost.fresh.p95
    assert cost.first.median < cost.fresh.median


def test_one_question_has_no_further_ones(inspector: VLM) -> None:
    assert measure(inspector, plan(question(SCRATCH)), (120, 90), 1).further is None


def test_a_region_outside_such_frames(inspector: VLM) -> None:
    far = Region(name="far", box=(500, 500, 600, 600))
    with pytest.raises(EdgeVLMError, match=r"question .*: region far: the box .* is not inside the frame"):
        measure(inspector, plan(question(SCRATCH, region="far"), regions=(far,)), (120, 90), 1)
