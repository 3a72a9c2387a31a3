"""What a frame costs on this machine, measured with the plan's own questions: what a deadline is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.judging.question import Asks
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError

RUNS = 7
SEED = 13
PATCHES = 8
"""In each direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Milliseconds of several runs."""

    median: float
    """Half of the runs took longer."""
    p95: float
    """What 95 of 100 runs stay below; of few runs, about the slowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a frame of one size costs."""

    width: int
    """Of the frames, in pixels."""
    height: int
    """Of the frames, in pixels."""
    runs: int
    """Frames that were measured."""
    fresh: Spent
    """A frame like none before, with all questions: what a deadline must allow."""
    first: Spent
    """Of it, up to the first answer of each region: cutting, encoding, the picture's prefill, one question."""
    further: Spent | None
    """Each further question about the same region; None where no region has two."""
    unchanged: Spent
    """A frame equal to the one before, by the plan's own `reuse`."""


def measure(vlm: VLM, plan: Asks, size: tuple[int, int], runs: int = RUNS) -> Cost:
    """Judge `runs` drawn frames of `size` (width, height), each twice, after one that does not count.

    Raises `EdgeVLMError` as `Judge` does, and for a question that frames of this size cannot be asked.
    """
    drawn = np.random.default_rng(SEED)
    fresh: list[Judgement] = []
    unchanged: list[Judgement] = []
    with Judge(vlm, plan) as judge:
        judge.check()
        for number in range(runs + 1):
            frame = drawn_frame(drawn, size, number + 1)
            fresh.append(_answered(judge, frame))
            unchanged.append(_answered(judge, replace(frame, sequence=frame.sequence + 1)))
    firsts = {question.region: question.name for question in reversed(plan.questions)}
    answers = [answer for judgement in fresh[1:] for answer in judgement.answers]
    first = [answer.milliseconds for answer in answers if answer.question in firsts.values()]
    further = [answer.milliseconds for answer in answers if answer.question not in firsts.values()]
    return Cost(
        width=size[0],
        height=size[1],
        runs=runs,
        fresh=spent([judgement.milliseconds for judgement in fresh[1:]]),
        first=spent(first),
        further=spent(further) if further else None,
        unchanged=spent([judgement.milliseconds for judgement in unchanged[1:]]),
    )


def drawn_frame(drawn: np.random.Generator, size: tuple[int, int], number: int = 1) -> Frame:
    """A frame of random patches: unlike any other to a cache, and to `frames.change` too, which looks past noise."""
    width, height = size
    patches = drawn.integers(0, 256, (PATCHES, PATCHES, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * PATCHES // height, np.arange(width) * PATCHES // width
    return Frame(number, 0.0, 0.0, patches[rows][:, columns])


def _answered(judge: Judge, frame: Frame) -> Judgement:
    judgement = judge.judge(frame)
    for answer in judgement.answers:
        if answer.error:
            raise EdgeVLMError(f"question {answer.question}: {answer.error}")
    return judgement


def spent(milliseconds: Sequence[float]) -> Spent:
    """Median and 95th percentile (at least one value)."""
    median, p95 = np.percentile(milliseconds, (50, 95))
    return Spent(median=float(median), p95=float(p95))
